// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/deploy/grafana"
	"security-exporter/internal/testkit"
)

// freeAddress is an address of loopback that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// background runs a program until the test ends.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, log.String())
		}
	})
}

func get(address string) (int, []byte) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(address)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil
	}
	return response.StatusCode, body
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ready(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// firing are the alerts of a Prometheus that fire.
func firing(t *testing.T, address string) map[string]bool {
	t.Helper()
	code, body := get("http://" + address + "/api/v1/alerts")
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if err := json.Unmarshal(body, &answer); code != http.StatusOK || err != nil {
		t.Fatalf("alerts: %d %v", code, err)
	}
	out := map[string]bool{}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			out[a.Labels["alertname"]] = true
		}
	}
	return out
}

// shellOnSocket runs a shell whose standard input and output are a TCP
// connection.
func shellOnSocket(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.Stdin, cmd.Stdout = file, file
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// TestAlertsEndToEnd has a real Prometheus scrape the real exporter, does the
// real thing, and waits for the alert.
func TestAlertsEndToEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it loads eBPF programs")
	}
	server, err := exec.LookPath("prometheus")
	if err != nil {
		testkit.Missing(t, "prometheus (Debian's package) is missing")
	}
	dir := t.TempDir()
	exporter := filepath.Join(dir, "security-exporter")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", exporter, "./cmd/security-exporter")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	watched := write("watched", "")
	metrics, web := freeAddress(t), freeAddress(t)
	// Only the file of this test is watched, so that nobody else writes it.
	config := write("config.yml", "file_access:\n  defaults: false\n  rules:\n    - {path: "+watched+", write: critical}\n")
	background(t, exporter, "--ebpf.enabled", "--config.file="+config, "--web.listen-address="+metrics, "--api.listen-address=")
	waitFor(t, "the exporter is ready", func() bool { code, _ := get("http://" + metrics + "/readyz"); return code == http.StatusOK })
	if _, page := get("http://" + metrics + "/metrics"); !strings.Contains(string(page), `security_ebpf_up{status="active"} 1`) &&
		!strings.Contains(string(page), `security_ebpf_up{status="partial"} 1`) {
		t.Fatal("no eBPF probe runs")
	}
	rules, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	prometheus := write("prometheus.yml", fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\n"+
		"rule_files: [%[1]s/alerts.yml, %[1]s/recording.yml]\n"+
		"scrape_configs:\n  - job_name: security-exporter\n    static_configs: [{targets: [%[2]q]}]\n", rules, metrics))
	background(t, server, "--config.file="+prometheus, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+web)
	waitFor(t, "Prometheus has scraped and run the rules", func() bool {
		_, body := get("http://" + web + "/api/v1/query?query=count_over_time(up[1m])%3E5")
		return strings.Contains(string(body), metrics)
	})
	if firing(t, web)["SecuritySensitiveWrite"] {
		t.Error("SecuritySensitiveWrite fires before anything was written")
	}

	if err := os.WriteFile(watched, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	shellOnSocket(t)
	for _, name := range []string{"SecuritySensitiveWrite", "SecuritySuspiciousExec"} {
		waitFor(t, name, func() bool { return firing(t, web)[name] })
	}
	for _, d := range grafana.Dashboards() {
		for _, p := range d.Panels {
			for _, q := range p.Queries {
				query := "http://" + web + "/api/v1/query?query=" + url.QueryEscape(grafana.Expand(q[0]))
				waitFor(t, d.Title+", "+p.Title+": data for "+q[0], func() bool {
					code, body := get(query)
					return code == http.StatusOK && bytes.Contains(body, []byte(`"value":`))
				})
			}
		}
	}
	if firing(t, web)["SecurityExporterDown"] {
		t.Error("SecurityExporterDown fires")
	}
}
