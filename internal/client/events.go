// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"security-exporter/internal/api"
	"security-exporter/internal/stream"
)

// maxLine is the longest record that is read.
const maxLine = 1 << 20

func eventsCommand(app *kingpin.Application, flags *common) func(context.Context, IO) error {
	kind := app.Flag("kind", "Only these kinds, comma-separated: "+strings.Join(stream.Kinds(), ", ")+".").Default("").String()
	class := app.Flag("class", "Only processes of these classes, comma-separated: "+strings.Join(stream.Classes(), ", ")+".").Default("").String()
	severity := app.Flag("min-severity", "Only events at least so severe: "+strings.Join(stream.Severities(), ", ")+".").Default("info").String()
	return func(ctx context.Context, std IO) error {
		query := url.Values{"min_severity": {*severity}}
		var kinds, classes []string
		if *kind != "" {
			kinds = []string{*kind}
			query["kind"] = kinds
		}
		if *class != "" {
			classes = []string{*class}
			query["class"] = classes
		}
		if err := oneOf("min-severity", *severity, stream.Severities()); err != nil {
			return err
		}
		if _, err := stream.NewFilter(kinds, nil, ""); err != nil {
			return usageError{fmt.Errorf("--kind=%s: %w", clean(*kind), err)}
		}
		if _, err := stream.NewFilter(nil, classes, ""); err != nil {
			return usageError{fmt.Errorf("--class=%s: %w", clean(*class), err)}
		}
		c, err := connect(*flags.address)
		if err != nil {
			return err
		}
		body, err := c.open(ctx, api.EventsPath, query)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		return copyEvents(body, std.Out, *flags.json)
	}
}

// copyEvents writes records until the exporter ends the stream.
func copyEvents(from io.Reader, to io.Writer, asJSON bool) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		text := clean(lines.Text())
		if !asJSON {
			var r stream.Record
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				return fmt.Errorf("a line that is no event: %w", err)
			}
			text = humanLine(&r)
		}
		if _, err := io.WriteString(to, text+"\n"); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream broke: %w", err)
	}
	return errors.New("the exporter has ended the stream")
}

// humanLine is one event for people: when, how severe, what, who, where.
func humanLine(r *stream.Record) string {
	if r.Kind() == stream.KindLost {
		return fmt.Sprintf("--- %d events lost here, this reader was too slow (they stand for %d) ---", r.LostRecords, r.LostEvents)
	}
	when := r.Timestamp
	if t, err := time.Parse(time.RFC3339Nano, r.Timestamp); err == nil {
		when = t.Local().Format("15:04:05.000")
	}
	parts := []string{when, pad(r.SeverityText, 8), pad(r.Kind(), 13)}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+quoted(value))
		}
	}
	number := func(name string, v *uint32) {
		if v != nil {
			parts = append(parts, name+strconv.FormatUint(uint64(*v), 10))
		}
	}
	number("pid=", r.PID)
	number("uid=", r.RealUserID)
	if r.UserID != nil && r.RealUserID != nil && *r.UserID != *r.RealUserID {
		number("euid=", r.UserID)
	}
	add("", r.Class)
	if r.ExecutablePath != "" {
		add("", r.ExecutablePath)
	} else {
		add("", r.ExecutableName)
	}
	if len(r.Arguments) > 0 {
		args := make([]string, len(r.Arguments))
		for i, a := range r.Arguments {
			args[i] = quoted(a)
		}
		parts = append(parts, "args=["+strings.Join(args, " ")+"]")
	}
	humanDetail(r, add)
	if len(r.ContainerID) > 0 {
		add("container=", r.ContainerID[:min(len(r.ContainerID), 12)])
	}
	add("pod=", r.PodName)
	add("unit=", r.Unit)
	if r.Weight != nil && *r.Weight > 1 {
		number("x", r.Weight)
	}
	return clean(strings.Join(parts, " "))
}

// humanDetail adds what only some kinds have.
func humanDetail(r *stream.Record, add func(name, value string)) {
	add("", r.Operation)
	add("file=", r.FilePath)
	add("", r.ErrorType)
	add("", r.Direction)
	add("", r.Transport)
	if r.PeerAddress != "" && r.PeerPort != nil {
		add("peer=", net.JoinHostPort(r.PeerAddress, strconv.Itoa(int(*r.PeerPort))))
	}
	add("", r.Call)
	add("via=", r.Via)
	add("", r.Result)
	if r.OldID != nil && r.NewID != nil {
		add("id=", fmt.Sprintf("%d->%d", *r.OldID, *r.NewID))
	}
	if r.OldCaps != r.NewCaps {
		add("caps=", r.OldCaps+"->"+r.NewCaps)
	}
	add("", r.ModuleAction)
	add("module=", r.ModuleName)
}

// quoted keeps a value with spaces or anything odd apart from its neighbours.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \"'[]") || clean(s) != s {
		return strconv.Quote(s)
	}
	return s
}
