// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// configuration is a file that a test rewrites.
type configuration struct{ path, dir string }

func newConfiguration(t *testing.T) *configuration {
	t.Helper()
	dir := t.TempDir()
	return &configuration{filepath.Join(dir, "config.yml"), dir}
}

func (c *configuration) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(c.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rules are file rules for names in the folder.
func (c *configuration) rules(names ...string) string {
	text := "file_access:\n  defaults: false\n  rules:\n"
	for _, name := range names {
		text += fmt.Sprintf("  - {path: %s/%s, read: info}\n", c.dir, name)
	}
	return text
}

// post asks for a reload.
func (p *process) post(t *testing.T) (int, string) {
	t.Helper()
	return p.get(t, "/-/reload", func(r *http.Request) { r.Method = http.MethodPost })
}

const (
	reloadSuccessful = "security_exporter_config_last_reload_successful"
	reloadTime       = "security_exporter_config_last_reload_success_timestamp_seconds"
	infoReads        = `security_ebpf_file_access_total{operation="read",severity="info"}`
)

var configHash = regexp.MustCompile(`security_exporter_config_hash_info\{hash="([0-9a-f]{16}|none)"\} 1`)

func hashOf(t *testing.T, page string) string {
	t.Helper()
	m := configHash.FindStringSubmatch(page)
	if m == nil {
		t.Fatal("no hash on the page")
	}
	return m[1]
}

// waitLog waits until the log has n lines with text.
func (p *process) waitLog(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); strings.Count(p.stderr(), text) < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log has not %d times %q\n%s", n, text, p.stderr())
		}
	}
}

// waitValue waits for the value of a series.
func (p *process) waitValue(t *testing.T, series string, want string) {
	t.Helper()
	line := series + " " + want + "\n"
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.page(t), line); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become %s", series, want)
		}
	}
}

func TestReloadPosture(t *testing.T) {
	t.Parallel()
	c := newConfiguration(t)
	const daily = "collectors: {sysctl: {interval: 24h}, checks: {interval: 24h}}\n"
	c.write(t, "sysctl: {expect: {kernel.pid_max: 1}}\n"+daily)
	p := start(t, "--config.file="+c.path, "--web.enable-lifecycle")
	waitReady(t, p)
	const compliant, waived = `linux_security_sysctl_compliant{param="kernel.pid_max"}`, `linux_security_check_waived{check="sshd_root_login",section="sshd"}`
	p.waitValue(t, compliant, "0")
	before := p.page(t)
	if strings.Contains(before, waived) {
		t.Errorf("%s is there", waived)
	}
	now, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "sysctl: {expect: {kernel.pid_max: "+strings.TrimSpace(string(now))+"}}\nchecks: {waive: {sshd_root_login: why}}\n"+daily)
	if code, body := p.post(t); code != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	p.waitValue(t, compliant, "1")
	p.waitValue(t, waived, "1")
	good := p.page(t)
	if hashOf(t, good) == hashOf(t, before) || value(t, good, reloadTime) <= value(t, before, reloadTime) || value(t, good, reloadSuccessful) != 1 {
		t.Error("the change is not on the page")
	}

	// A bad file changes nothing but says so, to the one who asked and in the log.
	c.write(t, "sysctl:\n  expect:\n    kernel.pid_max: 1\nchecks:\n  waive: {nope: why}\n")
	line := c.path + `:5: checks.waive: no check is called "nope"; docs/checks.md lists them`
	if code, body := p.post(t); code != http.StatusInternalServerError || body != line+"\n" {
		t.Errorf("%d %q", code, body)
	}
	p.signal(t, syscall.SIGHUP)
	p.waitLog(t, "Configuration not applied; the one before stays in force", 2)
	bad := p.page(t)
	if value(t, bad, reloadSuccessful) != 0 || hashOf(t, bad) != hashOf(t, good) || value(t, bad, reloadTime) != value(t, good, reloadTime) {
		t.Error("the page does not show the configuration in force")
	}
	if value(t, bad, compliant) != 1 || value(t, bad, waived) != 1 {
		t.Error("half of the bad file is in force")
	}
	if code, out, errs := command(t, "check-config", "--config.file="+c.path); code != 2 || out != "" || errs != "security-exporter: --config.file: "+line+"\n" {
		t.Errorf("check-config: %d, %q, %q", code, out, errs)
	}
	if code, body := p.get(t, "/-/reload", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d %q", code, body)
	}
	p.stop(t)
}

func TestReloadIsOff(t *testing.T) {
	t.Parallel()
	p := start(t)
	waitReady(t, p)
	if code, body := p.post(t); code != http.StatusForbidden || body != "the lifecycle API is off; start the exporter with --web.enable-lifecycle\n" {
		t.Errorf("%d %q", code, body)
	}
	if got := hashOf(t, p.page(t)); got != "none" {
		t.Errorf("hash %s", got)
	}
	p.signal(t, syscall.SIGHUP)
	p.waitLog(t, "started without --config.file", 1)
	p.stop(t)
}

// asUnit runs the exporter with the user and the six capabilities that its
// unit gives it, and tracefs, which systemd mounts.
func asUnit(t *testing.T, args ...string) *process {
	t.Helper()
	const caps = "-all,+bpf,+perfmon,+net_admin,+sys_ptrace,+dac_read_search,+audit_control"
	const script = `mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=$0 --inh-caps=$0 --ambient-caps=$0 --no-new-privs "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-ec", script, caps, binary, "--web.listen-address=127.0.0.1:0", "--api.listen-address="}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	p := launchCmd(t, cmd)
	p.waitListening(t)
	return p
}

// A rule that stays loses no open and counts none twice while others come and
// go, also when the process has given up its privileges.
func TestReloadUnderLoad(t *testing.T) {
	testkit.RequireBPF(t)
	for name, run := range map[string]func(*testing.T, ...string) *process{"root": start, "unit": asUnit} {
		t.Run(name, func(t *testing.T) {
			c := newConfiguration(t)
			for _, file := range []string{"stays", "comes"} {
				if err := os.WriteFile(filepath.Join(c.dir, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			stays, comes := filepath.Join(c.dir, "stays"), filepath.Join(c.dir, "comes")
			c.write(t, c.rules("stays"))
			p := run(t, "--ebpf.enabled", "--ebpf.probes=file", "--config.file="+c.path, "--web.enable-lifecycle")
			waitReady(t, p)
			for privileges := range threadPrivileges(t, p.cmd.Process.Pid) {
				if !strings.HasSuffix(privileges, "NoNewPrivs 1, Seccomp 2") {
					t.Fatalf("not hardened: %s", privileges)
				}
			}
			if up := value(t, p.page(t), `security_ebpf_probe_up{probe="file"}`); up != 1 {
				t.Fatalf("the probe is not up\n%s", p.stderr())
			}
			if got := value(t, p.page(t), infoReads); got != 0 {
				t.Fatalf("%v reads at first", got)
			}
			var stop atomic.Bool
			opens := make(chan int)
			go func() {
				n := 0
				for ; !stop.Load(); n++ {
					if file, err := os.Open(stays); err == nil {
						_ = file.Close()
					}
				}
				opens <- n
			}()
			const reloads = 20
			for i := range reloads {
				names := []string{"stays"}
				for j := range (i + 1) % 4 {
					names = append(names, fmt.Sprintf("glob-%d-%d*", i, j), fmt.Sprintf("folder-%d/", j), fmt.Sprintf("name-%d", i))
				}
				c.write(t, c.rules(unique(names)...))
				if i%2 == 0 {
					if code, body := p.post(t); code != http.StatusOK {
						t.Errorf("reload %d: %d %s", i, code, body)
					}
				} else {
					p.signal(t, syscall.SIGHUP)
				}
				p.waitLog(t, `msg="Configuration applied"`, i+1)
			}
			stop.Store(true)
			n := <-opens
			if got := value(t, p.page(t), infoReads); got != float64(n) {
				t.Errorf("%v reads, want %d", got, n)
			}
			t.Logf("%d opens during %d reloads", n, reloads)

			// A rule that comes counts from now on, and one that goes no longer.
			c.write(t, c.rules("comes"))
			if code, body := p.post(t); code != http.StatusOK {
				t.Errorf("%d %s", code, body)
			}
			before := value(t, p.page(t), infoReads)
			for _, path := range []string{stays, comes, comes} {
				if _, err := os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
			}
			if got := value(t, p.page(t), infoReads) - before; got != 2 {
				t.Errorf("%v reads after the last reload, want 2", got)
			}

			// More than the kernel's tables hold is refused, and what is in
			// force goes on.
			var many []string
			for i := range 17 {
				many = append(many, fmt.Sprintf("many-%d*", i))
			}
			c.write(t, c.rules(many...))
			if code, body := p.post(t); code != http.StatusInternalServerError || body != c.path+": file_access.rules: watched files: directory "+c.dir+": 17 globs; at most 16\n" {
				t.Errorf("%d %s", code, body)
			}
			if _, err := os.ReadFile(comes); err != nil {
				t.Fatal(err)
			}
			page := p.page(t)
			if got := value(t, page, infoReads) - before; got != 3 || value(t, page, reloadSuccessful) != 0 {
				t.Errorf("%v reads after a reload that was refused, want 3", got)
			}
			p.stop(t)
		})
	}
}

func unique(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, name := range names {
		if !seen[name] {
			out = append(out, name)
		}
		seen[name] = true
	}
	return out
}

// SIGHUP at any moment, the start and the end included, ends nothing.
func TestHangupAtAnyTime(t *testing.T) {
	t.Parallel()
	c := newConfiguration(t)
	c.write(t, c.rules("x"))
	args := []string{"--config.file=" + c.path}
	if os.Geteuid() == 0 {
		args = append(args, "--ebpf.enabled", "--ebpf.probes=file")
	}
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 500 * time.Millisecond, time.Second} {
		p := start(t, args...)
		end := make(chan struct{})
		stormed := make(chan struct{})
		go func() {
			defer close(stormed)
			for {
				select {
				case <-end:
					return
				case <-p.done:
					return
				case <-time.After(time.Millisecond):
					_ = p.cmd.Process.Signal(syscall.SIGHUP)
				}
			}
		}()
		time.Sleep(after)
		p.stop(t)
		close(end)
		<-stormed
		if strings.Contains(p.stderr(), "panic") || strings.Contains(p.stderr(), "level=ERROR") {
			t.Errorf("after %v:\n%s", after, p.stderr())
		}
	}
}
