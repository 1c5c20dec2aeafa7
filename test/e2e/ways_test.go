// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/api"
)

// command runs a subcommand of the binary to its end.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestLocalAPI(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	p := start(t, "--api.listen-address="+path)
	waitReady(t, p)
	if st, err := os.Lstat(path); err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket %v, %v", st.Mode(), err)
	}
	code, out, errs := command(t, "status", "--json", "--api.address="+path)
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if s.Runtime.State != "disabled" || len(s.Collectors) == 0 || len(s.NotReady) != 0 || len(s.Runtime.Dropped) != 3 {
		t.Errorf("status %+v", s)
	}
	const off = ": the exporter answers: eBPF is off; start the exporter with --ebpf.enabled\n"
	for _, name := range []string{"top", "events"} {
		if code, out, errs := command(t, name, "--api.address="+path); code != 1 || out != "" || errs != "security-exporter "+name+off {
			t.Errorf("%s: exit %d, %q, %q", name, code, out, errs)
		}
	}
	// A second exporter does not take the socket away, and says why.
	second := launch(t, "--web.listen-address=127.0.0.1:0", "--api.listen-address="+path)
	if code := second.wait(t, stopLimit); code != 2 || second.stderr() != "security-exporter: --api.listen-address: "+path+": another process listens there; stop it or choose another path\n" {
		t.Errorf("exit %d, %s", code, second.stderr())
	}
	p.stop(t)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if code, _, errs := command(t, "status", "--api.address="+path); code != 1 || !strings.Contains(errs, path+" does not exist; start security-exporter") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// What a killed exporter leaves is taken over; a client that follows nothing
// does not delay the end.
func TestLocalAPIAfterKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "api.sock")
	p := start(t, "--api.listen-address="+path)
	p.signal(t, syscall.SIGKILL)
	<-p.done
	if code, _, errs := command(t, "status", "--api.address="+path); code != 1 || !strings.Contains(errs, "nobody listens on "+path) {
		t.Errorf("exit %d, %s", code, errs)
	}
	p = start(t, "--api.listen-address="+path)
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	p.stop(t)
}

// On TCP, TLS and users are those of the metrics page.
func TestLocalAPIOnTCP(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	const hash = "$2a$04$p7L5NT4NeEuUWnYF7SYr4.adxmLqdHCdI5dL52HOscvtBo7De1TH." // "secret"
	p := launch(t, "--web.listen-address=127.0.0.1:0", "--api.listen-address="+addr, "--web.config.file="+webConfig(t, hash))
	p.addr = addr
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.stderr(), "msg=Started"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not start\n%s", p.stderr())
		}
	}
	for password, want := range map[string]int{"": 401, "wrong": 401, "secret": 200} {
		user := "prom"
		if password == "" {
			user = ""
		}
		if code, body := p.get(t, api.StatusPath, auth(user, password)); code != want {
			t.Errorf("with %q: %d %s", password, code, body)
		}
	}
	if code, _ := p.get(t, api.EventsPath, func(r *http.Request) { r.SetBasicAuth("prom", "secret") }); code != 503 {
		t.Errorf("events: %d", code)
	}
	p.stop(t)
}

// Where events are written is looked at before anything is loaded.
func TestEventsOutputRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for output, want := range map[string]string{
		"file:" + dir + "/no/x": "--events.output: stat " + dir + "/no: no such file or directory",
		"file:" + dir:           "--events.output: " + dir + ": is no file, FIFO or character device",
		"syslog":                "--events.output=syslog: want stdout or file:PATH",
	} {
		p := launch(t, "--web.listen-address=127.0.0.1:0", "--api.listen-address=", "--events.output="+output)
		if code := p.wait(t, stopLimit); code != 2 || p.stderr() != "security-exporter: "+want+"\n" {
			t.Errorf("%s: exit %d, %s", output, code, p.stderr())
		}
	}
}

// An output that takes nothing holds up neither the scrape nor the end.
func TestEventsOutputStuck(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{"file:" + fifo, "file:/dev/full", "stdout"} {
		p := start(t, "--events.output="+output)
		if v := value(t, p.page(t), `security_ebpf_events_dropped_total{output="file"}`); v != 0 {
			t.Errorf("%s: %v dropped", output, v)
		}
		p.stop(t)
	}
}
