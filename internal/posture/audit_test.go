// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	answers := map[string]func() (*auditState, error){
		"loaded": func() (*auditState, error) {
			return &auditState{auditStatus{Enabled: 2, Pid: 512, BacklogLimit: 8192, Lost: 3, Backlog: 1}, 3}, nil
		},
		"off":       func() (*auditState, error) { return &auditState{}, nil },
		"killed":    func() (*auditState, error) { return &auditState{auditStatus{Enabled: 1, Pid: 512}, 2}, nil },
		"container": func() (*auditState, error) { return nil, auditError(unix.ECONNREFUSED) },
		"denied":    func() (*auditState, error) { return nil, auditError(unix.EPERM) },
		"no-audit":  func() (*auditState, error) { return nil, auditError(unix.EPROTONOSUPPORT) },
	}
	for name, answer := range answers {
		// One spec for each answer; the golden harness takes one for all.
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join("testdata/audit", name)
			spec := auditWith(func(context.Context) (*auditState, error) { return answer() })
			compare(t, filepath.Join(dir, "metrics.prom"), exposition(t, spec, fixtureInput(filepath.Join(dir, "rootfs"), Settings{})))
		})
	}
}

func TestParseAuditRules(t *testing.T) {
	t.Parallel()
	got, err := parseAuditRules(strings.NewReader("## comment\n-D\n-b 8192\n  -w /etc/passwd -p wa -k id\n-a always,exit -F arch=b64 -S mount\n-A exit,always -S all\n#-w /x\n-e 2\n-W /y\n"))
	if got != 3 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

func FuzzParseAuditRules(f *testing.F) {
	f.Add("-w /etc/passwd -p wa\n-e 2\n")
	f.Fuzz(func(t *testing.T, s string) {
		if n, _ := parseAuditRules(strings.NewReader(s)); n > strings.Count(s, "-") {
			t.Errorf("%d rules in %q", n, s)
		}
		_, _ = parseAuditStatus([]byte(s))
	})
}

// auditctl reads and writes one setting as the collector sees it.
func auditctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("auditctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("auditctl %q: %v: %s", args, err, out)
	}
	return string(out)
}

// auditAlone keeps a second run of these tests away: there is one audit system.
func auditAlone(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(os.TempDir(), "security-exporter-audit-test.lock"))
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
}

// The kernel's own answer, with auditctl(8) as the oracle. Auditing is neither
// switched on nor off, and the rule matches nobody.
func TestAuditKernel(t *testing.T) {
	needsRoot(t, "auditctl")
	auditAlone(t)
	rule := strings.Fields("always,exit -F arch=b64 -S swapoff -F auid=4242424 -F key=security-exporter-test")
	before := compareAudit(t)
	if before.Enabled == 2 {
		t.Skip("auditing is locked until the next boot")
	}
	auditctl(t, append([]string{"-a"}, rule...)...)
	remove := sync.OnceFunc(func() { auditctl(t, append([]string{"-d"}, rule...)...) })
	t.Cleanup(remove)
	after := compareAudit(t)
	remove()
	if after.rules != before.rules+1 {
		t.Errorf("%d rules, before %d", after.rules, before.rules)
	}
	if last := compareAudit(t); last.rules != before.rules {
		t.Errorf("%d rules at the end, before %d", last.rules, before.rules)
	}
}

func compareAudit(t *testing.T) *auditState {
	t.Helper()
	s, err := queryAudit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(auditctl(t, "-s")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields[name] = value
	}
	for name, value := range map[string]uint32{
		"enabled": s.Enabled, "failure": s.Failure, "pid": s.Pid, "rate_limit": s.RateLimit, "backlog_limit": s.BacklogLimit,
	} {
		if want := fields[name]; strconv.Itoa(int(value)) != want {
			t.Errorf("%s %d, auditctl says %q", name, value, want)
		}
	}
	want := 0
	for line := range strings.Lines(auditctl(t, "-l")) {
		if strings.HasPrefix(line, "-") {
			want++
		}
	}
	if s.rules != want {
		t.Errorf("%d rules, auditctl lists %d", s.rules, want)
	}
	return s
}

// auditd registers itself, and is gone when it ends.
func TestAuditDaemon(t *testing.T) {
	needsRoot(t, "auditd")
	auditAlone(t)
	root := hostfs.New(hostfs.Paths{})
	if s, err := queryAudit(t.Context()); err != nil {
		t.Fatal(err)
	} else if alive, _ := s.daemonAlive(t.Context(), root); alive {
		t.Skip("another audit daemon runs here")
	}
	dir := t.TempDir()
	put(t, dir+"/auditd.conf", "log_file = "+dir+"/audit.log\nwrite_logs = no\n"+
		"space_left = 2\nadmin_space_left = 1\nplugin_dir = "+dir+"\n")
	daemon := exec.Command("auditd", "-f", "-s", "nochange", "-c", dir)
	must(t, daemon.Start())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	awaitAudit(t, func(s *auditState) bool { return s.Pid == uint32(daemon.Process.Pid) })
	awaitAudit(t, func(s *auditState) bool { alive, err := s.daemonAlive(t.Context(), root); return alive && err == nil })
	// A signal that comes before the daemon is ready gets lost in it.
	for range 100 {
		must(t, daemon.Process.Signal(unix.SIGTERM))
		select {
		case <-ended:
			awaitAudit(t, func(s *auditState) bool { return s.Pid == 0 })
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	_ = daemon.Process.Kill()
	t.Error("auditd does not end")
}

func awaitAudit(t *testing.T, ok func(*auditState) bool) {
	t.Helper()
	var s *auditState
	var err error
	for range 100 {
		if s, err = queryAudit(t.Context()); err == nil && ok(s) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%+v, %v", s, err)
}

// The kernel answers only in the initial namespaces.
func TestAuditNamespaces(t *testing.T) {
	t.Parallel()
	const child = "SECURITY_EXPORTER_TEST_AUDIT"
	if os.Getenv(child) != "" {
		_, err := queryAudit(t.Context())
		for _, e := range []unix.Errno{unix.ECONNREFUSED, unix.EPERM} {
			if errors.Is(err, e) {
				fmt.Printf("errno %d\n", e)
			}
		}
		return
	}
	needsRoot(t)
	for _, c := range []struct {
		flags uintptr
		want  unix.Errno
	}{{syscall.CLONE_NEWUSER, unix.ECONNREFUSED}, {syscall.CLONE_NEWPID, unix.EPERM}} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAuditNamespaces$", "-test.count=1")
		cmd.Env = append(os.Environ(), child+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: c.flags}
		out, err := cmd.CombinedOutput()
		if want := fmt.Sprintf("errno %d\n", c.want); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("flags %#x: %v: %s, want %s", c.flags, err, out, want)
		}
	}
}
