// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/metric/metrictest"
	"security-exporter/internal/testkit"
)

const execSystem = `security_ebpf_process_exec_total{type="system"}`

// TestRuntime runs the exporter with all probes on the live kernel.
func TestRuntime(t *testing.T) {
	testkit.RequireBPF(t)
	dir := t.TempDir()
	watched, config := filepath.Join(dir, "watched"), filepath.Join(dir, "config.yml")
	rules := fmt.Sprintf("file_access:\n  defaults: false\n  rules:\n  - path: %s\n    read: info\n    write: warning\n", watched)
	for path, text := range map[string]string{watched: "x", config: rules} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pinned := pins(t)
	p := start(t, "--ebpf.enabled", "--config.file="+config)

	// The first scrape waits for the probes, and nothing is missing from it.
	before := p.page(t)
	if v := value(t, before, `security_ebpf_up{status="active"}`); v != 1 {
		t.Errorf("not active\n%s", p.stderr())
	}
	problems, err := metrictest.LintPage(strings.NewReader(before))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Error(problem)
	}
	for _, name := range []string{"system", "user", "container", "suspicious"} {
		for _, metric := range []string{"exec_total", "exit_total", "active_count"} {
			value(t, before, fmt.Sprintf(`security_ebpf_process_%s{type=%q}`, metric, name))
		}
	}

	// At least n execs, since others run programs too; exactly n opens.
	const n = 500
	for range n {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(watched)
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
	}
	after := p.page(t)
	if got := value(t, after, execSystem) - value(t, before, execSystem); got < n {
		t.Errorf("%v execs of system programs, want at least %d", got, n)
	}
	for severity, want := range map[string]float64{"info": n, "warning": 0, "critical": 0} {
		series := fmt.Sprintf(`security_ebpf_file_access_total{operation="read",severity=%q}`, severity)
		if got := value(t, after, series) - value(t, before, series); got != want {
			t.Errorf("%s changed by %v, want %v", series, got, want)
		}
	}

	// A second one beside it neither disturbs nor is disturbed.
	second := start(t, "--ebpf.enabled", "--config.file="+config)
	if v := value(t, second.page(t), `security_ebpf_up{status="active"}`); v != 1 {
		t.Errorf("the second is not active\n%s", second.stderr())
	}
	second.stop(t)
	if v := value(t, p.page(t), execSystem); v < value(t, after, execSystem) {
		t.Errorf("execs went back to %v", v)
	}

	stopDuringScrapes(t, p)
	if now := pins(t); !slices.Equal(now, pinned) {
		t.Errorf("pinned: %v, before %v", now, pinned)
	}
}

func pins(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/bpf/*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// stopDuringScrapes ends the exporter while it answers. Every answer that
// comes is whole.
func stopDuringScrapes(t *testing.T, p *process) {
	t.Helper()
	var scrapers sync.WaitGroup
	for range 4 {
		scrapers.Go(func() {
			for {
				resp, err := http.Get("http://" + p.addr + "/metrics")
				if err != nil {
					return // it has ended
				}
				page, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(page), "security_ebpf_up{") {
					t.Errorf("a scrape was cut: %d, %v", resp.StatusCode, err)
					return
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	p.stop(t)
	scrapers.Wait()
}

// TestStopWhileStarting sends the signal while the probes are being attached.
func TestStopWhileStarting(t *testing.T) {
	testkit.RequireBPF(t)
	for _, after := range []time.Duration{0, 200 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			p := start(t, "--ebpf.enabled")
			time.Sleep(after)
			p.stop(t)
		})
	}
}

var hook = regexp.MustCompile(`security_ebpf_probe_info\{hook="[^"]*",probe="(\w+)",reason="(\w+)",state="(\w+)"\} 1`)

// TestRuntimeWithoutPrivilege serves a whole page and says what is missing.
func TestRuntimeWithoutPrivilege(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	program := filepath.Join(t.TempDir(), "security-exporter")
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	// The folders above belong to root; the child must be able to pass.
	for dir := filepath.Dir(program); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--web.listen-address=127.0.0.1:0", "--ebpf.enabled")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	p := launchCmd(t, cmd)
	for deadline := time.Now().Add(10 * time.Second); p.addr == ""; time.Sleep(5 * time.Millisecond) {
		if m := listening.FindStringSubmatch(p.stderr()); m != nil {
			p.addr = m[1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not listen\n%s", p.stderr())
		}
	}
	page := p.page(t)
	if v := value(t, page, `security_ebpf_up{status="degraded"}`); v != 0 {
		t.Errorf("degraded has the value %v", v)
	}
	found := hook.FindAllStringSubmatch(page, -1)
	if len(found) != 5 {
		t.Errorf("%d probes, want 5", len(found))
	}
	for _, m := range found {
		if m[2] != "no_permission" || m[3] != "denied" {
			t.Errorf("%s: %s, %s", m[1], m[3], m[2])
		}
	}
	p.stop(t)
}
