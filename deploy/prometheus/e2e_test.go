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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/deploy/grafana"
	"security-exporter/internal/testkit"
)

// freeAddress is an address of loopback that nobody listens on now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a program that runs until stop or the end of the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	var log strings.Builder
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &log, &log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), log.String())
		}
	})
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
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

func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ready(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 90 seconds", what)
		}
	}
}

// exporter is one of the exporters that Prometheus scrapes.
type exporter struct {
	program, address string
	args             []string
	process          *process
}

// start starts it and waits until it is ready. before are words that are put
// before the command line.
func (e *exporter) start(t testing.TB, before ...string) {
	t.Helper()
	words := append(before, e.program, "--web.listen-address="+e.address, "--api.listen-address=")
	words = append(words, e.args...)
	e.process = start(t, words[0], words[1:]...)
	waitFor(t, "the exporter is ready", func() bool {
		code, _ := get("http://" + e.address + "/readyz")
		return code == http.StatusOK
	})
}

// restart is a start after a stop.
func (e *exporter) restart(t *testing.T, before ...string) {
	t.Helper()
	e.process.stop()
	e.start(t, before...)
}

// world is what the test runs: exporters by name, and the Prometheus that
// scrapes them every second.
type world struct {
	dir, clean string // temporary folders; others may not write to the way to clean
	exporters  map[string]*exporter
	web        string
	server     *process
	config     string
	// host is a root file system, and sys a /sys, for the exporter posture.
	host, sys string
}

func (w *world) write(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(w.dir, name)
	writeFile(t, name, text)
	return name
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configure writes the configuration of Prometheus.
func (w *world) configure(t *testing.T, targets ...string) {
	t.Helper()
	w.config = w.write(t, "prometheus.yml", fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\n"+
		"rule_files: [%s, %s]\nscrape_configs:\n  - job_name: security-exporter\n    static_configs: [{targets: [%s]}]\n",
		shortenRules(t, "alerts.yml", w.dir), shortenRules(t, "recording.yml", w.dir), strings.Join(targets, ", ")))
}

// query asks Prometheus and returns the labels of what it answers.
func (w *world) query(t testing.TB, query string) []map[string]string {
	t.Helper()
	code, body := get("http://" + w.web + "/api/v1/query?query=" + url.QueryEscape(query))
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := json.Unmarshal(body, &answer); code != http.StatusOK || err != nil {
		t.Fatalf("%s: %d %v %s", query, code, err, body)
	}
	var out []map[string]string
	for _, r := range answer.Data.Result {
		out = append(out, r.Metric)
	}
	return out
}

// pair is an alert and the host on which it fires.
type pair struct{ alert, instance string }

// fired are the alerts that fired after a moment, also if they do not any more.
func (w *world) fired(t *testing.T, since time.Time) map[pair]bool {
	t.Helper()
	seconds := max(int(time.Since(since).Seconds()), 1)
	out := map[pair]bool{}
	for _, m := range w.query(t, fmt.Sprintf(`count by (alertname, instance) (count_over_time(ALERTS{alertstate="firing"}[%ds]))`, seconds)) {
		out[pair{m["alertname"], m["instance"]}] = true
	}
	return out
}

// firing are the alerts that fire now.
func (w *world) firing(t *testing.T) map[pair]bool {
	t.Helper()
	out := map[pair]bool{}
	for _, m := range w.query(t, `ALERTS{alertstate="firing"}`) {
		out[pair{m["alertname"], m["instance"]}] = true
	}
	return out
}

const inNamespaces = "SECURITY_EXPORTER_E2E_PROGRAM"

// TestAlertsEndToEnd has a real Prometheus scrape the real exporter, does the
// real thing for each alert, and waits for the alert. It runs in network and
// mount namespaces of its own, whose process 1 it takes the place of, so that
// the firewall, ports and kernel parameters that it changes are not the host's.
func TestAlertsEndToEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it loads eBPF programs")
	}
	for _, tool := range []string{"prometheus", "nft", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, "%s (Debian's packages prometheus, nftables and util-linux) is missing", tool)
		}
	}
	if program := os.Getenv(inNamespaces); program != "" {
		alertsEndToEnd(t, program)
		return
	}
	// Not in the temporary folder: a program there is suspicious.
	if err := os.MkdirAll("../../build", 0o755); err != nil {
		t.Fatal(err)
	}
	clean, err := os.MkdirTemp("../../build", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(clean) })
	if clean, err = filepath.Abs(clean); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(clean, "security-exporter")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/security-exporter")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	child := exec.Command("/proc/self/exe", "-test.run=^TestAlertsEndToEnd$", "-test.v", "-test.timeout=8m")
	child.Env = append(os.Environ(), inNamespaces+"="+program)
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// settle makes the namespaces a host: loopback is up, mounts are not shared,
// and process 1 is this one.
func settle(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d", os.Getpid()), "/proc/1", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

// newWorld starts five exporters and Prometheus:
//
//	runtime  all of eBPF; only files of this test are watched
//	probes   two probes, started again with fewer capabilities
//	posture  a host and /sys made for this test
//	boot     another /sys, started again with another kernel
//	gone     is stopped
func newWorld(t *testing.T, program string) *world {
	w := &world{dir: t.TempDir(), clean: filepath.Dir(program), exporters: map[string]*exporter{}, web: freeAddress(t)}
	w.makeHost(t)
	config := w.write(t, "config.yml", fmt.Sprintf("file_access:\n  defaults: false\n  rules:\n"+
		"    - {path: %[1]s/written, write: critical}\n    - {path: %[1]s/read, read: critical}\n", w.dir))
	w.write(t, "written", "")
	w.write(t, "read", "")
	w.write(t, "boot/kernel/security/lsm", "capability,landlock,apparmor\n")
	for name, args := range map[string][]string{
		"runtime": {"--ebpf.enabled", "--ebpf.detailed", "--ebpf.hook-policy=tracepoint", "--config.file=" + config},
		"probes":  {"--ebpf.enabled", "--ebpf.probes=process,network"},
		"posture": {"--path.rootfs=" + w.host, "--path.sysfs=" + w.sys, "--no-collector.services"},
		"boot":    {"--path.rootfs=" + w.host, "--path.sysfs=" + filepath.Join(w.dir, "boot")},
		"gone":    nil,
	} {
		w.exporters[name] = &exporter{program: program, address: freeAddress(t), args: args}
		w.exporters[name].start(t)
	}
	var targets []string
	for _, e := range w.exporters {
		targets = append(targets, strconv.Quote(e.address))
	}
	if _, page := get("http://" + w.exporters["probes"].address + "/metrics"); !bytes.Contains(page, []byte(`security_ebpf_up{status="active"} 1`)) {
		t.Fatal("not all probes run")
	}
	w.configure(t, targets...)
	w.server = start(t, "prometheus", "--config.file="+w.config, "--storage.tsdb.path="+filepath.Join(w.dir, "data"), "--web.listen-address="+w.web)
	return w
}

// alertsEndToEnd is the test inside of the namespaces.
func alertsEndToEnd(t *testing.T, program string) {
	began := time.Now()
	settle(t)
	w := newWorld(t, program)
	waitFor(t, "a past as long as the alerts look back", func() bool {
		code, _ := get("http://" + w.web + "/-/ready")
		return code == http.StatusOK && len(w.query(t, "instance:security_ebpf_privilege_gained:rate10m offset 16s")) == len(w.exporters)
	})

	// The quiet before: nothing that is done below has fired.
	before := w.fired(t, began)
	for _, a := range acts {
		if before[w.pairOf(a)] && !a.hostWide {
			t.Errorf("%s fires on %s before anything was done", a.alert, a.on)
		}
	}
	acted := map[pair]time.Time{}
	for _, a := range acts {
		if a.cannot != nil {
			if reason := a.cannot(t); reason != "" {
				t.Logf("%s is not tried on this host: %s", a.alert, reason)
				continue
			}
		}
		p := w.pairOf(a)
		if a.hostWide {
			waitFor(t, a.alert+" does not fire for another program on this host", func() bool { return !w.firing(t)[p] })
		}
		acted[p] = time.Now()
		a.do(t, w)
		if a.atOnce {
			waitFor(t, a.alert, func() bool { return w.fired(t, acted[p])[p] })
		}
	}
	fired := 0
	for p, since := range acted {
		deadline := time.Now().Add(90 * time.Second)
		for !w.fired(t, since)[p] && time.Now().Before(deadline) {
			time.Sleep(200 * time.Millisecond)
		}
		if w.fired(t, since)[p] {
			fired++
		} else {
			t.Errorf("%s does not fire", p.alert)
		}
	}
	checkDashboards(t, w)
	checkFederation(t, w)
	w.removeTargets(t)
	t.Logf("%d of %d alerts have fired, in %s", fired+1, len(readRules(t, "alerts.yml")), time.Since(began).Round(time.Second))
}

func (w *world) pairOf(a act) pair { return pair{a.alert, w.exporters[a.on].address} }

// removeTargets is the act of SecurityExporterMissing: the job loses its
// targets. It comes last, since nothing is scraped afterwards.
func (w *world) removeTargets(t *testing.T) {
	t.Helper()
	missing := pair{alert: alertOfTargets}
	if w.fired(t, time.Now().Add(-8*time.Minute))[missing] {
		t.Errorf("%s fires while there are targets", missing.alert)
	}
	w.configure(t)
	if err := w.server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, missing.alert, func() bool { return w.firing(t)[missing] })
}

// checkDashboards asks every query of the dashboards.
func checkDashboards(t *testing.T, w *world) {
	t.Helper()
	for _, d := range grafana.Dashboards() {
		for _, p := range d.Panels {
			for _, q := range p.Queries {
				waitFor(t, d.Title+", "+p.Title+": data for "+q[0], func() bool { return len(w.query(t, grafana.Expand(q[0]))) > 0 })
			}
		}
	}
}
