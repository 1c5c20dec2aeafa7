// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"golang.org/x/term"

	"security-exporter/internal/api"
)

// topOptions are what top asks for.
type topOptions struct {
	by, n, window string
	interval      time.Duration
}

func topCommand(app *kingpin.Application, flags *common) func(context.Context, IO) error {
	by := app.Flag("by", "The list: "+strings.Join(api.TopBy(), ", ")+".").Default("exec").String()
	n := app.Flag("n", "How many entries; the exporter's --ebpf.top-n if not given.").Default("").String()
	window := app.Flag("window", "How far to look back: a duration up to the exporter's --ebpf.top-window, which is the default, or start.").Default("").String()
	interval := app.Flag("interval", "How often to ask, live; 500ms to 1h.").Default("2s").String()
	once := app.Flag("once", "Print the list once and end, as without a terminal.").Default("false").Bool()
	return func(ctx context.Context, std IO) error {
		o := topOptions{by: *by, n: *n, window: *window}
		if err := o.check(*interval); err != nil {
			return err
		}
		c, err := connect(*flags.address)
		if err != nil {
			return err
		}
		in, inOK := terminal(std.In, term.IsTerminal)
		out, outOK := terminal(std.Out, term.IsTerminal)
		if !*once && !*flags.json && inOK && outOK {
			return live(ctx, c, o, in, out)
		}
		data, answer, err := askTop(ctx, c, o)
		if err != nil {
			return err
		}
		if *flags.json {
			return writeJSON(std.Out, data)
		}
		_, err = fmt.Fprintln(std.Out, strings.Join(table(answer, 1<<16), "\n"))
		return err
	}
}

// check refuses what no exporter takes. Limits that its flags set are its own
// to tell.
func (o *topOptions) check(interval string) error {
	if err := oneOf("by", o.by, api.TopBy()); err != nil {
		return err
	}
	if v, err := strconv.ParseUint(o.n, 10, 31); o.n != "" && (err != nil || v == 0) {
		return usageError{fmt.Errorf("--n=%s: want a whole number above 0", clean(o.n))}
	}
	if o.window != "" && o.window != api.SinceStart {
		if d, err := time.ParseDuration(o.window); err != nil || d < time.Second {
			return usageError{fmt.Errorf("--window=%s: want a duration such as 10m, or %s", clean(o.window), api.SinceStart)}
		}
	}
	var err error
	if o.interval, err = time.ParseDuration(interval); err != nil || o.interval < 500*time.Millisecond || o.interval > time.Hour {
		return usageError{fmt.Errorf("--interval=%s: want a duration from 500ms to 1h", clean(interval))}
	}
	return nil
}

func askTop(ctx context.Context, c *connection, o topOptions) ([]byte, api.TopAnswer, error) {
	query := url.Values{"by": {o.by}}
	if o.n != "" {
		query.Set("n", o.n)
	}
	if o.window != "" {
		query.Set("window", o.window)
	}
	var answer api.TopAnswer
	data, err := c.get(ctx, api.TopPath, query)
	if err != nil {
		return nil, answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, answer, fmt.Errorf("%s: is no answer of security-exporter: %w", c.address, err)
	}
	slices.SortStableFunc(answer.Entries, func(a, b api.Entry) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key))
	})
	return data, answer, nil
}

// keyNames say what the keys of a list are.
var keyNames = map[string]string{"exec": "EXECUTABLE", "connect": "REMOTE ADDRESS", "file": "FILE", "privilege": "EXECUTABLE", "connect_process": "EXECUTABLE", "file_process": "EXECUTABLE"}

// table lays a list out in lines of at most so many columns, its head first.
func table(answer api.TopAnswer, columns int) []string {
	key := cmp.Or(keyNames[answer.By], "KEY")
	counts, containers := len("COUNT"), len("CONTAINER")
	rows := [][3]string{}
	for _, e := range answer.Entries {
		count := strconv.FormatUint(e.Count, 10)
		if e.Error > 0 {
			count += " ±" + strconv.FormatUint(e.Error, 10)
		}
		container := fit(e.Container, 16)
		rows = append(rows, [3]string{count, container, e.Key})
		counts, containers = max(counts, len([]rune(count))), max(containers, len([]rune(container)))
	}
	out := []string{fit(pad("COUNT", counts)+"  "+pad("CONTAINER", containers)+"  "+key, columns)}
	for _, r := range rows {
		out = append(out, fit(pad(r[0], counts)+"  "+pad(r[1], containers)+"  "+r[2], columns))
	}
	return out
}
