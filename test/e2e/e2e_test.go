// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/metric/metrictest"
)

func TestFlagSpellings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  []string
		goOn  bool
		debug bool
	}{
		{nil, false, false},
		{[]string{"-collector.go-metrics"}, true, false},
		{[]string{"--collector.go-metrics"}, true, false},
		{[]string{"--collector.go-metrics=true"}, true, false},
		{[]string{"--collector.go-metrics=false"}, false, false},
		{[]string{"-collector.go-metrics=false"}, false, false},
		{[]string{"--no-collector.go-metrics"}, false, false},
		{[]string{"-log.level=debug"}, false, true},
		{[]string{"-log.level", "debug", "-collector.go-metrics"}, true, true},
		{[]string{"--log.level", "debug"}, false, true},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			p := start(t, c.args...)
			if got := strings.Contains(p.page(t), "\ngo_goroutines "); got != c.goOn {
				t.Errorf("Go metrics: %v, want %v", got, c.goOn)
			}
			p.signal(t, syscall.SIGHUP)
			p.stop(t)
		})
	}
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yml")
	if err := os.WriteFile(bad, []byte("file_access:\n  rules:\n  - path: etc\n    read: info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ arg, want string }{
		{"--web.listen-address=x", "--web.listen-address=x: "},
		{"--web.telemetry-path=/healthz", "--web.telemetry-path=/healthz: "},
		{"--web.config.file=/nope", "--web.config.file=/nope: "},
		{"--log.level=loud", "--log.level=loud: "},
		{"--log.format=xml", "--log.format=xml: "},
		{"--ebpf.enabled=maybe", "--ebpf.enabled=maybe: "},
		{"--ebpf.sample-rate=0", "--ebpf.sample-rate=0: "},
		{"--ebpf.detailed=2", "--ebpf.detailed=2: "},
		{"--ebpf.max-events-per-second=-5", "--ebpf.max-events-per-second=-5: "},
		{"--ebpf.probes=process,disk", "--ebpf.probes=process,disk: "},
		{"--path.procfs=/nope", "--path.procfs=/nope: "},
		{"--path.sysfs=nope", "--path.sysfs=nope: "},
		{"--path.rootfs=" + bad, "--path.rootfs=" + bad + ": "},
		{"--collector.go-metrics=on", "--collector.go-metrics=on: "},
		{"--collector.nope", "unknown flag --collector.nope"},
		{"--collector.port-states=LISTENING", "--collector.port-states=LISTENING: "},
		{"--collector.services-running=on", "--collector.services-running=on: "},
		{"--config.file=" + bad, "--config.file: " + bad + ":3: file_access.rules[0].path: "},
		{"--version=x", "--version=x: "},
		{"start", `unexpected argument "start"`},
		{"@" + bad, `unexpected argument "@`},
	} {
		t.Run(c.arg, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			cmd := exec.Command(binary, "--web.listen-address=127.0.0.1:0", c.arg)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if out := stderr.String(); !strings.HasPrefix(out, "security-exporter: "+c.want) || strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
				t.Errorf("stderr %q, want one line with %q", out, c.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q", stdout.String())
			}
		})
	}
}

// objectHash is the second and last line that --version prints.
var objectHash = regexp.MustCompile(`^[^\n]+\neBPF objects sha256:[0-9a-f]{64}\n$`)

func TestVersion(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(binary, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if s := string(out); !strings.HasPrefix(s, "security-exporter ") || !strings.Contains(s, "(commit ") || !strings.Contains(s, ", go1.") || !objectHash.MatchString(s) {
		t.Errorf("printed %q", s)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	p := start(t)
	second := launch(t, "--web.listen-address="+p.addr)
	if code := second.wait(t, 5*time.Second); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	want := fmt.Sprintf("security-exporter: cannot serve: listen tcp %s: bind: address already in use\n", p.addr)
	if got := second.stderr(); got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
	p.stop(t)
}

func TestPages(t *testing.T) {
	t.Parallel()
	p := start(t, "--web.telemetry-path=/probe/metrics")
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/probe/metrics": {200, "security_exporter_build_info{"},
		"/healthz":       {200, "ok\n"},
		"/":              {200, `<a href="/probe/metrics">`},
		"/metrics":       {404, ""},
		"/nope":          {404, ""},
	} {
		if code, body := p.get(t, path, nil); code != want.code || !strings.Contains(body, want.text) {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	waitReady(t, p)
	p.stop(t)
}

// waitReady waits until /readyz says 200.
func waitReady(t *testing.T, p *process) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, body := p.get(t, "/readyz", nil)
		if code == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz: %d %q", code, body)
		}
	}
}

func TestPageLints(t *testing.T) {
	t.Parallel()
	p := start(t)
	waitReady(t, p)
	page := p.page(t)
	problems, err := metrictest.LintPage(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Error(problem)
	}
	if v := value(t, page, `promhttp_metric_handler_errors_total{cause="gathering"}`); v != 0 {
		t.Errorf("%v scrapes were incomplete", v)
	}
	p.stop(t)
}

// webConfig writes an exporter-toolkit configuration with the user prom.
func webConfig(t *testing.T, hash string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(file, []byte("basic_auth_users:\n  prom: "+hash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func auth(user, password string) func(*http.Request) {
	return func(r *http.Request) {
		if user != "" {
			r.SetBasicAuth(user, password)
		}
	}
}

func TestBasicAuth(t *testing.T) {
	t.Parallel()
	// The bcrypt hash of "secret", at the least cost.
	const hash = "$2a$04$p7L5NT4NeEuUWnYF7SYr4.adxmLqdHCdI5dL52HOscvtBo7De1TH."
	file := webConfig(t, hash)
	p := start(t, "--web.config.file="+file)
	for _, c := range []struct {
		user, password string
		want           int
	}{{"", "", 401}, {"prom", "wrong", 401}, {"other", "secret", 401}, {"prom", "secret", 200}} {
		for _, path := range []string{"/metrics", "/healthz", "/readyz", "/"} {
			code, _ := p.get(t, path, auth(c.user, c.password))
			if code != c.want {
				t.Errorf("%s as %q with %q: %d, want %d", path, c.user, c.password, code, c.want)
			}
		}
	}
	p.stop(t)
}

// silentClient begins a request and never ends it.
func silentClient(t *testing.T, p *process) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.0\r\n"); err != nil {
		t.Fatal(err)
	}
	p.page(t) // the server accepts in order, so it has that connection
}

func TestSignalDuringSlowScrape(t *testing.T) {
	// Not parallel to the others: it needs its time on the processor. The
	// scrape is slow because its password is hashed many times over.
	const hash = "$2a$12$qq/xo9TI7CKl9OUZGhlmhuZNN2Y.4qVR23shD7slRSuccIl76nv6e" // "secret", cost 12
	config := webConfig(t, hash)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			p := start(t, "--web.config.file="+config)
			begin := time.Now()
			if code, _ := p.get(t, "/metrics", auth("prom", "wrong")); code != http.StatusUnauthorized {
				t.Fatalf("wrong password: %d", code)
			}
			slow := time.Since(begin)

			var code int
			var body string
			var answered time.Time
			done := make(chan struct{})
			go func() {
				defer close(done)
				code, body = p.get(t, "/metrics", auth("prom", "secret"))
				answered = time.Now()
			}()
			time.Sleep(slow / 2)
			signalled := time.Now()
			p.signal(t, s)
			if code := p.wait(t, stopLimit); code != 0 {
				t.Errorf("exit code %d", code)
			}
			<-done
			if !answered.After(signalled) {
				t.Fatalf("the scrape took less than %v and was over before the signal", slow/2)
			}
			if code != http.StatusOK || !strings.Contains(body, "security_exporter_build_info{") {
				t.Errorf("the scrape was cut: %d %q", code, body)
			}
		})
	}
}

func TestSilentClientDoesNotDelayTheEnd(t *testing.T) {
	t.Parallel()
	p := start(t)
	silentClient(t, p)
	p.stop(t)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t)
	silentClient(t, p)
	p.signal(t, syscall.SIGTERM)
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t, stopLimit); code != -int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want to be killed by the signal", code)
	}
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	p := launch(t, "--web.listen-address=127.0.0.1:0", "--log.format=json")
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(p.stderr(), `"msg":"Started"`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no JSON line\n%s", p.stderr())
		}
	}
	p.stop(t)
	quiet := start(t)
	quiet.stop(t)
	if !strings.Contains(quiet.stderr(), "level=INFO") {
		t.Errorf("no logfmt line\n%s", quiet.stderr())
	}
}
