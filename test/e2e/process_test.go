// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the real binary. This file has what every case needs:
// building it once, starting it on a free port, talking to it, stopping it.
package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stopLimit is how long the exporter may take from SIGTERM to its end.
const stopLimit = 2 * time.Second

// binary is the path of the program under test, set by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// An ordinary user runs it too.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "security-exporter")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "security-exporter/cmd/security-exporter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running exporter.
type process struct {
	cmd  *exec.Cmd
	addr string

	mu   sync.Mutex
	log  strings.Builder
	done chan struct{}
	err  error
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// start runs the exporter with args on a free port of loopback and waits
// until it serves. It is killed when the test ends, if it still runs. It has
// no local API unless args say where: exporters of other tests would share it.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	args = append([]string{"--web.listen-address=127.0.0.1:0"}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--api.") }) {
		args = append(args, "--api.listen-address=")
	}
	p := launch(t, args...)
	p.waitListening(t)
	return p
}

// waitListening waits until it serves, and notes the address.
func (p *process) waitListening(t *testing.T) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for p.addr == "" {
		if m := listening.FindStringSubmatch(p.stderr()); m != nil {
			p.addr = m[1]
			break
		}
		select {
		case <-p.done:
			t.Fatalf("ended: %v\n%s", p.err, p.stderr())
		case <-deadline:
			t.Fatalf("does not listen\n%s", p.stderr())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// launch runs the exporter without waiting for anything.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	return launchCmd(t, exec.Command(binary, args...))
}

// launchCmd runs a command that is, or becomes, the exporter.
func launchCmd(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{})}
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for r := bufio.NewReader(pipe); ; {
			line, err := r.ReadString('\n')
			p.mu.Lock()
			p.log.WriteString(line)
			p.mu.Unlock()
			if err != nil {
				break
			}
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code, or minus the number of the signal that killed
// the process.
func (p *process) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("still runs after %v\n%s", limit, p.stderr())
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return -int(ws.Signal())
		}
		return exit.ExitCode()
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return 0
}

// stop sends SIGTERM and expects a clean end within stopLimit.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t, stopLimit); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr())
	}
}

// get fetches a path. change, if not nil, alters the request.
func (p *process) get(t *testing.T, path string, change func(*http.Request)) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// page fetches the metrics page.
func (p *process) page(t *testing.T) string {
	t.Helper()
	code, body := p.get(t, "/metrics", nil)
	if code != http.StatusOK {
		t.Fatalf("/metrics: %d\n%s", code, body)
	}
	return body
}

// value returns the value of one series of a page, written as it stands
// there, such as `security_ebpf_up{status="active"}`.
func value(t *testing.T, page, series string) float64 {
	t.Helper()
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatalf("%s: %v", series, err)
			}
			return v
		}
	}
	t.Fatalf("no series %s on the page", series)
	return 0
}
