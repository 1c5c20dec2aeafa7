// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/config"
)

const (
	first  = "sysctl: {expect: {kernel.sysrq: 1}}\n"
	second = "sysctl: {expect: {kernel.sysrq: 2}}\nfile_access: {defaults: false}\n"
)

// target records what is in force.
type target struct {
	rules   []config.FileRule
	posture config.Posture
	refuse  error
	calls   int
	inside  atomic.Int32
}

type fixture struct {
	*Reloader
	file    string
	target  *target
	started chan struct{}
	log     *strings.Builder
}

func setup(t *testing.T, args ...string) *fixture {
	t.Helper()
	f := &fixture{file: filepath.Join(t.TempDir(), "c.yml"), target: &target{}, started: make(chan struct{}), log: &strings.Builder{}}
	f.write(t, first)
	if args == nil {
		args = []string{"--config.file=" + f.file}
	}
	known := config.Known{Checks: []string{"sshd_x11"}}
	cfg, err := config.Parse(args, known, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	f.Reloader = New(Options{
		Config: cfg, Known: known, Started: f.started,
		SetRules: func(r []config.FileRule) error {
			if f.target.inside.Add(1) > 1 {
				t.Error("two changes at a time")
			}
			defer f.target.inside.Add(-1)
			f.target.calls++
			if f.target.refuse != nil {
				return f.target.refuse
			}
			f.target.rules = r
			return nil
		},
		SetPosture: func(p config.Posture) { f.target.posture = p },
		Logger:     slog.New(slog.NewTextHandler(f.log, nil)),
	})
	return f
}

func (f *fixture) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// expect compares the state and the hash on the metrics page.
func (f *fixture) expect(t *testing.T, ok float64, hash string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f.Reloader)
	families, err := registry.Gather()
	if err != nil || len(families) != 3 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for i, name := range []string{"hash_info", "last_reload_success_timestamp_seconds", "last_reload_successful"} {
		if got := families[i].GetName(); got != "security_exporter_config_"+name {
			t.Fatalf("metric %s, want ..._%s", got, name)
		}
	}
	if got := families[0].GetMetric()[0].GetLabel()[0]; got.GetName() != "hash" || got.GetValue() != hash {
		t.Errorf("%v, want %s", got, hash)
	}
	if got := families[2].GetMetric()[0].GetGauge().GetValue(); got != ok {
		t.Errorf("successful is %v, want %v", got, ok)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	f := setup(t)
	close(f.started)
	f.expect(t, 1, "96284827d968f941")
	f.write(t, second)
	at := f.applied
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(f.target.rules) != 0 || f.target.posture.Sysctl["kernel.sysrq"] != "2" || f.target.calls != 1 {
		t.Errorf("in force: %+v", f.target)
	}
	applied := f.applied
	if !applied.After(at) {
		t.Error("the time of the last success is not new")
	}
	f.expect(t, 1, "58216c439a243675")

	// What is wrong with the file, and what the kernel refuses, changes nothing.
	f.write(t, first+"nope: 1\n")
	err := f.Reload(t.Context())
	if want := f.file + `:2: unknown key "nope"; want file_access, checks, sysctl, collectors`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	f.expect(t, 0, "58216c439a243675")
	f.write(t, first)
	f.target.refuse = errors.New("no\nroom")
	err = f.Reload(t.Context())
	if want := f.file + ": file_access.rules: no; room"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if f.target.calls != 2 || f.target.posture.Sysctl["kernel.sysrq"] != "2" || f.applied != applied {
		t.Errorf("half of it was applied: %+v", f.target)
	}
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(t.Context()); err == nil || err.Error() != "open "+f.file+": no such file or directory" {
		t.Error(err)
	}
	f.write(t, first)
	f.target.refuse = nil
	if err := f.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	f.expect(t, 1, "96284827d968f941")
	if log := f.log.String(); strings.Count(log, "level=ERROR") != 3 || strings.Count(log, "level=INFO") != 2 || strings.Count(log, "\n") != 5 {
		t.Errorf("log:\n%s", log)
	}
}

func TestReloadWithoutFile(t *testing.T) {
	t.Parallel()
	f := setup(t, "--log.level=info")
	close(f.started)
	if err := f.Reload(t.Context()); !errors.Is(err, ErrNoFile) || f.target.calls != 0 {
		t.Errorf("%v, %d calls", err, f.target.calls)
	}
	f.expect(t, 1, "none")
}

// A signal during the start is made up for after it; at the end it does
// nothing.
func TestSignals(t *testing.T) {
	t.Parallel()
	f := setup(t)
	signals := make(chan os.Signal, 1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		f.Run(ctx, signals)
		close(done)
	}()
	f.write(t, second)
	signals <- syscall.SIGHUP
	time.Sleep(20 * time.Millisecond)
	f.expect(t, 1, "96284827d968f941")
	close(f.started)
	for deadline := time.Now().Add(5 * time.Second); f.present().FileHash != "58216c439a243675"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the signal was lost")
		}
	}
	stop()
	<-done
	if err := f.Reload(ctx); !errors.Is(err, ErrNotNow) || f.target.calls != 1 {
		t.Errorf("after the end: %v, %d calls", err, f.target.calls)
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Reload(ctx); !errors.Is(err, ErrNotNow) || f.target.calls != 0 {
		t.Errorf("%v, %d calls", err, f.target.calls)
	}
}
