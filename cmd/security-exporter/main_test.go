// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"--version"}, 0, "security-exporter ", ""},
		{[]string{"--help"}, 0, "usage: security-exporter", ""},
		{[]string{"--log.level=loud"}, 2, "", "security-exporter: --log.level=loud: want debug, info, warn, error\n"},
		{[]string{"--api.listen-address=0.0.0.0:0"}, 2, "", "security-exporter: --api.listen-address=0.0.0.0:0: is not on loopback, and --web.config.file does not ask for TLS and authentication; want a socket, 127.0.0.1:PORT or [::1]:PORT\n"},
		{[]string{"--api.listen-address=/dev/null"}, 2, "", "security-exporter: --api.listen-address: /dev/null: exists and is no socket; remove it or choose another path\n"},
		{[]string{"status", "--nope"}, 2, "", "security-exporter status: unknown flag --nope, see --help\n"},
		{[]string{"status", "--api.address=/nope"}, 1, "", "security-exporter status: /nope does not exist; start security-exporter, or give --api.address if it has another --api.listen-address\n"},
		{[]string{"top", "--help"}, 0, "usage: security-exporter top", ""},
		{[]string{"check-config", "--ebpf.enabled", "--config.file=../../docs/config.example.yml"}, 0, "the flags and the configuration file are good\n", ""},
		{[]string{"check-config", "--config.file=/nope"}, 2, "", "security-exporter: --config.file: open /nope: no such file or directory\n"},
		{[]string{"nope"}, 2, "", "security-exporter: unexpected argument \"nope\": only flags are allowed, see --help\n"},
		{[]string{"--api.listen-address=", "--web.listen-address=" + taken.Addr().String()}, 2, "", "security-exporter: cannot serve: listen tcp " + taken.Addr().String() + ": bind: address already in use\n"},
	} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), c.args, &stdout, &stderr)
		if code != c.code || !strings.HasPrefix(stdout.String(), c.stdout) || (c.stdout == "") != (stdout.Len() == 0) || stderr.String() != c.stderr {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", c.args, code, stdout.String(), stderr.String())
		}
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if code := run(ctx, []string{"--web.listen-address=127.0.0.1:0", "--api.listen-address=", "--no-harden"}, io.Discard, io.Discard); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// fakePart records when it is closed.
type fakePart struct {
	prometheus.Collector
	close func() error
}

func (fakePart) Start(context.Context) {}
func (f fakePart) Close() error        { return f.close() }

func TestCloseParts(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	var order []string
	named := func(name string, err error) part {
		return fakePart{close: func() error {
			order = append(order, name)
			return err
		}}
	}
	if !closeParts([]part{named("a", nil), named("b", nil)}, new(sync.WaitGroup), closeTimeout, log) {
		t.Error("a clean stop was reported as failed")
	}
	if closeParts([]part{named("c", nil), named("d", errors.New("no"))}, new(sync.WaitGroup), closeTimeout, log) {
		t.Error("an error was lost")
	}
	if got := strings.Join(order, " "); got != "b a d c" {
		t.Errorf("closed in the order %s", got)
	}
}

func TestClosePartsIsBounded(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	hung := fakePart{close: func() error {
		<-hang
		return nil
	}}
	log := slog.New(slog.DiscardHandler)
	start := time.Now()
	if closeParts([]part{hung}, new(sync.WaitGroup), closeTimeout, log) {
		t.Error("a part that hangs was reported as closed")
	}
	var starting sync.WaitGroup
	starting.Add(1)
	defer starting.Done()
	if closeParts(nil, &starting, closeTimeout, log) {
		t.Error("a start that hangs was reported as closed")
	}
	if took := time.Since(start); took > 2*closeTimeout+300*time.Millisecond {
		t.Errorf("took %v", took)
	}
}
