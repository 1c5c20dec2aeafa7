// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/exporter-toolkit/web"

	"security-exporter/internal/api"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/stream"
)

// asClient makes the test binary be the client, for tests that need a process.
const asClient = "SECURITY_EXPORTER_TEST_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(asClient) != "" {
		ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		os.Exit(Run(ctx, os.Args[1:], IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	os.Exit(m.Run())
}

// source is a status and lists for a test; entries may be replaced.
type source struct {
	mu      sync.Mutex
	entries []api.Entry
	err     error
}

func (s *source) Status() (api.Status, error) {
	return api.Status{
		Version: "1.2\x1b[31m", Revision: "abc", Started: time.Now().Add(-90 * time.Second), NotReady: []string{},
		Runtime: api.Runtime{
			State: "partial", SampleRate: 4, Dropped: map[string]float64{"api": 7, "file": 0},
			Probes: []api.Probe{
				{Name: "file", State: "attached", Reason: "none", Hook: "fentry", EventsPerSecond: 1.25, Events: 10, Sampled: 3, Lost: 2},
				{Name: "kernel", State: "error", Reason: "verifier"},
			},
		},
		Collectors: []api.Collector{{Name: "sshd", Success: true, DurationSeconds: 0.0015}, {Name: "x\u202e", DurationSeconds: 2}},
	}, nil
}

func (s *source) Top(by string, n int, window time.Duration) (api.Top, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return api.Top{}, s.err
	}
	if by == "connect" {
		return api.Top{Window: window, Entries: []api.Entry{{Key: "192.0.2.1", Count: 1}}}, nil
	}
	return api.Top{Window: window, Entries: s.entries[:min(n, len(s.entries))]}, nil
}

// exporter is the API of an exporter with fake contents.
func exporter(t *testing.T) (path string, hub *stream.Hub, s *source) {
	t.Helper()
	path, hub, none := filepath.Join(t.TempDir(), "s"), stream.NewHub(), ""
	s = &source{entries: []api.Entry{
		{Key: "/usr/bin/less", Count: 5},
		{Key: "/tmp/\x1b]0;owned\x07\n日本", Container: "0123456789abcdef0123", Count: 70, Error: 3},
		{Key: "/usr/bin/cat", Count: 5},
	}}
	server := api.New(api.Options{
		Address: config.API{Socket: path}, Web: web.FlagConfig{WebConfigFile: &none}, Status: s,
		Top: s, TopN: 10, TopCapacity: 50, TopWindow: 10 * time.Minute, Hub: hub, Logger: slog.New(slog.DiscardHandler),
	})
	if err := server.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return path, hub, s
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = Run(t.Context(), args, IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	for _, s := range []string{out.String(), errs.String()} {
		if i := strings.IndexFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q: unprintable at %d of %q", args, i, s)
		}
	}
	return code, out.String(), errs.String()
}

func TestStatus(t *testing.T) {
	t.Parallel()
	path, _, _ := exporter(t)
	code, out, errs := run(t, "status", "--api.address="+path)
	const want = "version  1.2\ufffd[31m (commit abc)\nup       1m30s, ready\nruntime  partial, sample rate 4\ndropped  api 7\n" + `
PROBE   STATE     PER SECOND  DETAIL EVENTS  SAMPLED OUT  LOST  HOOKS OR REASON
file    attached  1.2         10             3            2     fentry
kernel  error     0.0         0              0            0     verifier

COLLECTOR  STATE   TOOK
sshd       ok      1.5ms
` + "x\ufffd         failed  2s\n"
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d, %s\n%s\nwant\n%s", code, errs, out, want)
	}
	var s api.Status
	code, out, _ = run(t, "status", "-json", "-api.address", path)
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || strings.Count(out, "\n") != 1 || s.Runtime.State != "partial" {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
}

func TestTopOnce(t *testing.T) {
	t.Parallel()
	path, _, _ := exporter(t)
	code, out, errs := run(t, "top", "--api.address="+path, "--n=3")
	const want = "COUNT  CONTAINER         EXECUTABLE\n" +
		"70 ±3  0123456789abcde~  /tmp/\ufffd]0;owned\ufffd\ufffd日本\n" +
		"5                        /usr/bin/cat\n" +
		"5                        /usr/bin/less\n"
	if code != 0 || out != want {
		t.Errorf("exit %d, %s\n%s\nwant\n%s", code, errs, out, want)
	}
	var a api.TopAnswer
	code, out, _ = run(t, "top", "--api.address="+path, "--once", "--json", "--by=connect", "--window=start")
	if err := json.Unmarshal([]byte(out), &a); err != nil || code != 0 || a.By != "connect" || a.WindowSeconds != 0 || len(a.Entries) != 1 {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	path, hub, _ := exporter(t)
	for _, asJSON := range []bool{false, true} {
		wait(t, "the client before it is gone", func() bool { return !hub.Active() })
		ctx, cancel := context.WithCancel(t.Context())
		args := []string{"events", "--api.address=" + path, "--kind=exec,file", "--class=user", "--min-severity=info"}
		if asJSON {
			args = append(args, "--json")
		}
		out := &lockedBuffer{}
		done := make(chan int, 1)
		go func() { done <- Run(ctx, args, IO{Out: out, Err: out}) }()
		wait(t, "the client is there", hub.Active)
		hub.Publish(&event.Event{Kind: 1, Class: 1, Weight: 1, TGID: 4}, nil)
		hub.Publish(&event.Event{
			Kind: 0, Class: 1, Severity: event.Critical, Weight: 2, TGID: 5, UID: 7, EUID: 0, LoginUID: event.NoID,
			Comm: []byte("sh"), Executable: []byte("/tmp/a b\x1b[2J"), Arguments: []byte("sh\x00\n\x00\xff"),
		}, &identity.Identity{ContainerID: "0123456789abcdef", PodName: "web-0"})
		hub.Publish(&event.Event{Kind: 4, Class: 1, Weight: 1, TGID: 6, Comm: []byte("cat"), Name: []byte("/etc/shadow"), LoginUID: event.NoID}, nil)
		wait(t, "two lines", func() bool { return strings.Count(out.String(), "\n") == 2 })
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("exit %d, %s", code, out)
		}
		lines := strings.Split(out.String(), "\n")
		if asJSON {
			var r stream.Record
			if err := json.Unmarshal([]byte(lines[0]), &r); err != nil || r.ExecutablePath != "/tmp/a b\x1b[2J" || r.Arguments[1] != "\n" {
				t.Errorf("%v, %s", err, lines[0])
			}
			continue
		}
		const first = ` critical exec          pid=5 uid=7 euid=0 user "/tmp/a b\x1b[2J" args=[sh "\n" ` + "\ufffd" + `] container=0123456789ab pod=web-0 x2`
		if !strings.HasSuffix(lines[0], first) {
			t.Errorf("got %q\nwant %q", lines[0], first)
		}
		if want := ` info     file          pid=6 uid=0 user cat read file=/etc/shadow`; !strings.HasSuffix(lines[1], want) {
			t.Errorf("got %q\nwant %q", lines[1], want)
		}
	}
}

func TestHumanLineLost(t *testing.T) {
	t.Parallel()
	r := stream.Record{EventName: "security.lost", LostRecords: 3, LostEvents: 9}
	if got := humanLine(&r); got != "--- 3 events lost here, this reader was too slow (they stand for 9) ---" {
		t.Error(got)
	}
}

func TestHumanLines(t *testing.T) {
	t.Parallel()
	id := func(v uint32) *uint32 { return &v }
	port := uint16(22)
	for want, r := range map[string]stream.Record{
		"t critical gain          pid=1 suspicious sh via=userns id=0->0 caps=00->ff": {SeverityText: "critical", EventName: "security.gain", PID: id(1), Class: "suspicious", ExecutableName: "sh", Via: "userns", OldID: id(0), NewID: id(0), OldCaps: "00", NewCaps: "ff"},
		"t info     privilege     setuid failure id=1->0":                             {SeverityText: "info", EventName: "security.privilege", Call: "setuid", Result: "failure", OldID: id(1), NewID: id(0)},
		"t warning  connect_error refused tcp peer=\"[2001:db8::1]:22\"":              {SeverityText: "warning", EventName: "security.connect_error", ErrorType: "refused", Transport: "tcp", PeerAddress: "2001:db8::1", PeerPort: &port},
		"t critical module        success load_file module=\"a b\" unit=x.service":    {SeverityText: "critical", EventName: "security.module", ModuleAction: "load_file", ModuleName: "a b", Result: "success", Unit: "x.service"},
	} {
		r.Timestamp = "t"
		if got := humanLine(&r); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	path, _, s := exporter(t)
	s.err = errors.New("no\x1b lists")
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	const hint = "start security-exporter, or give --api.address if it has another --api.listen-address\n"
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status", "--api.address=/nope/s"}, 1, "status: /nope/s does not exist; " + hint},
		{[]string{"events", "--api.address=" + dead}, 1, "events: nobody listens on " + dead + "; " + hint},
		{[]string{"top", "--api.address=" + path}, 1, "top: the exporter answers: no\ufffd lists\n"},
		{[]string{"top", "--api.address=" + path, "--n=51"}, 1, "top: the exporter answers: n=51: want a whole number from 1 to 50\n"},
		{[]string{"top", "--by=disk"}, 2, "top: --by=disk: want exec, connect, connect_process, file, file_process, privilege\n"},
		{[]string{"top", "--n=0"}, 2, "top: --n=0: want a whole number above 0\n"},
		{[]string{"top", "--window=0"}, 2, "top: --window=0: want a duration such as 10m, or start\n"},
		{[]string{"top", "--interval=1ms"}, 2, "top: --interval=1ms: want a duration from 500ms to 1h\n"},
		{[]string{"events", "--kind=exe"}, 2, "events: --kind=exe: unknown kind \"exe\", want exec, exit, connect, connect_error, file, privilege, gain, module\n"},
		{[]string{"events", "--class=root"}, 2, "events: --class=root: unknown class \"root\", want system, user, container, suspicious\n"},
		{[]string{"events", "--min-severity=bad"}, 2, "events: --min-severity=bad: want info, warning, critical\n"},
		{[]string{"status", "--api.address=x"}, 2, "status: --api.address=x: want the absolute path of a socket, or HOST:PORT\n"},
		{[]string{"status", "--nope"}, 2, "status: unknown flag --nope, see --help\n"},
		{[]string{"status", "more"}, 2, "status: unexpected argument \"more\": only flags are allowed, see --help\n"},
	} {
		code, out, errs := run(t, c.args...)
		if code != c.code || out != "" || errs != "security-exporter "+c.want {
			t.Errorf("%q: exit %d, %q, %q\nwant %d %q", c.args, code, out, errs, c.code, c.want)
		}
	}
	for _, name := range []string{"status", "top", "events"} {
		if code, out, errs := run(t, name, "--help"); code != 0 || !strings.HasPrefix(out, "usage: security-exporter "+name) || errs != "" {
			t.Errorf("%s --help: exit %d, %q, %q", name, code, out, errs)
		}
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab~"}, {"abc", 1, "~"}, {"abc", 0, ""}, {"", 0, ""},
		{"日本", 4, "日本"}, {"日本", 3, "日~"}, {"日本", 2, "~"}, {"e\u0301e\u0301", 2, "e\u0301e\u0301"},
		{"a\x1b[31mb", 20, "a\ufffd[31mb"}, {"\xff\u202e\u0085", 9, "\ufffd\ufffd\ufffd"},
	} {
		if got := fit(c.in, c.limit); got != c.want {
			t.Errorf("fit(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
	if got := pad("日", 4); got != "日  " {
		t.Errorf("pad: %q", got)
	}
}

// lockedBuffer is written by a command while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
