// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// line is a line of a page: its text up to the value, the value, and by how
// much it differed on a second page of the same host.
type line struct {
	text    string
	value   float64
	moves   float64
	counter bool
}

// recording is a page of the real exporter that can be served again under
// many names, with those values moving that moved on the real host.
type recording struct {
	lines        []line
	series       int
	moving       int
	plain, gzip  int // bytes of the page as it was taken
	every        time.Duration
	served, sent atomic.Int64
}

func record(first, second []byte, every time.Duration) *recording {
	r := &recording{every: every, plain: len(first), gzip: len(compress(first))}
	later := map[string]float64{}
	for text := range strings.Lines(string(second)) {
		if name, value, ok := sample(text); ok {
			later[name] = value
		}
	}
	counters := false
	for text := range strings.Lines(string(first)) {
		if strings.HasPrefix(text, "# TYPE") {
			counters = strings.HasSuffix(strings.TrimSpace(text), " counter")
		}
		name, value, ok := sample(text)
		if !ok {
			r.lines = append(r.lines, line{text: text})
			continue
		}
		l := line{text: name, value: value, counter: counters}
		if next, ok := later[name]; ok && next != value {
			l.moves = next - value
			r.moving++
		}
		r.series++
		r.lines = append(r.lines, l)
	}
	return r
}

// sample takes a line of a page apart.
func sample(text string) (name string, value float64, ok bool) {
	text = strings.TrimSuffix(text, "\n")
	i := strings.LastIndexByte(text, ' ')
	if i < 0 || text[0] == '#' {
		return "", 0, false
	}
	value, err := strconv.ParseFloat(text[i+1:], 64)
	return text[:i], value, err == nil
}

// page is what a host serves after a time.
func (r *recording) page(host int, elapsed time.Duration) []byte {
	// Hosts differ in how busy they are, between half and one and a half times.
	busy := 0.5 + float64(host%101)/100
	steps := busy * float64(elapsed) / float64(r.every)
	var b bytes.Buffer
	b.Grow(r.plain)
	for _, l := range r.lines {
		b.WriteString(l.text)
		if l.text[0] == '#' {
			continue
		}
		value := l.value
		switch {
		case l.moves == 0:
		case l.counter && l.moves == math.Trunc(l.moves):
			value += math.Floor(l.moves * steps)
		case l.counter:
			value += l.moves * steps
		default:
			value += l.moves * rand.Float64()
		}
		fmt.Fprintf(&b, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
	}
	return b.Bytes()
}

func compress(page []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	_, _ = z.Write(page)
	_ = z.Close()
	return b.Bytes()
}

// serve answers /N as the host N.
func (r *recording) serve(b *testing.B) *httptest.Server {
	began := time.Now()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		host, err := strconv.Atoi(strings.TrimPrefix(q.URL.Path, "/"))
		if err != nil {
			http.NotFound(w, q)
			return
		}
		page := compress(r.page(host, time.Since(began)))
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Header().Set("Content-Encoding", "gzip")
		n, _ := w.Write(page)
		r.served.Add(1)
		r.sent.Add(int64(n))
	}))
	b.Cleanup(s.Close)
	return s
}

// takePages runs the real exporter and takes its page twice.
func takePages(b *testing.B, every time.Duration) *recording {
	b.Helper()
	program := filepath.Join(b.TempDir(), "security-exporter")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/security-exporter")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	e := &exporter{program: program, address: freeAddress(b), args: []string{"--ebpf.enabled"}}
	e.start(b)
	defer e.process.stop()
	_, first := get("http://" + e.address + "/metrics")
	time.Sleep(every)
	_, second := get("http://" + e.address + "/metrics")
	if !bytes.Contains(second, []byte(`security_ebpf_up{status="active"} 1`)) {
		b.Fatal("not all probes run")
	}
	return record(first, second, every)
}

// fleets are what BenchmarkFleet simulates.
var fleets = []struct {
	hosts    int
	interval time.Duration
}{{100, 15 * time.Second}, {1000, 15 * time.Second}, {1000, time.Minute}}

// maxMemory ends a fleet that Prometheus would need more for.
const maxMemory = 8 << 30

// BenchmarkFleet has the real Prometheus, with all rules loaded, scrape a page
// of the real exporter under many names, and measures what Prometheus needs.
// Once all hosts were scraped, a minute or two are measured: seven minutes in all.
func BenchmarkFleet(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: it loads eBPF programs")
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		testkit.Missing(b, "prometheus (Debian's package) is missing")
	}
	r := takePages(b, 15*time.Second)
	for _, f := range fleets {
		b.Run(fmt.Sprintf("hosts=%d/interval=%s", f.hosts, f.interval), func(b *testing.B) {
			for range b.N {
				r.run(b, f.hosts, f.interval)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(r.series), "series/host")
			b.ReportMetric(float64(r.moving), "moving/host")
			b.ReportMetric(float64(r.plain)/1e3, "plain-kB/host")
			b.ReportMetric(float64(r.gzip)/1e3, "gzip-kB/host")
		})
	}
}

func (r *recording) run(b *testing.B, hosts int, interval time.Duration) {
	dir, web := b.TempDir(), freeAddress(b)
	s := r.serve(b)
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	var groups []group
	for i := range hosts {
		groups = append(groups, group{[]string{s.Listener.Addr().String()}, map[string]string{
			"__metrics_path__": fmt.Sprintf("/%d", i), "instance": fmt.Sprintf("host%04d:9102", i),
		}})
	}
	targets, err := json.Marshal(groups)
	if err != nil {
		b.Fatal(err)
	}
	rules, err := filepath.Abs(".")
	if err != nil {
		b.Fatal(err)
	}
	writeFile(b, filepath.Join(dir, "targets.json"), string(targets))
	writeFile(b, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf("global: {scrape_interval: %s, evaluation_interval: 1m}\n"+
		"rule_files: [%[2]s/alerts.yml, %[2]s/recording.yml]\n"+
		"scrape_configs:\n  - job_name: security-exporter\n    file_sd_configs: [{files: [targets.json]}]\n", interval, rules))
	server := start(b, "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+web)
	defer server.stop()
	w := &world{web: web}
	pid := server.cmd.Process.Pid
	wait := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			if now := memory(b, pid, "VmRSS"); now > maxMemory {
				b.Fatalf("Prometheus needs more than %d bytes", int64(maxMemory))
			}
		}
	}
	wait(interval)
	// The first scrape of a host is the dear one: its series are made.
	waitFor(b, "all hosts are up", func() bool {
		wait(2 * time.Second)
		return len(w.query(b, `up == 1`)) == hosts
	})
	own := func(name string) float64 { return ownMetric(b, web, name) }
	const appended = `prometheus_tsdb_head_samples_appended_total(?:\{type="float"\})?`
	cpu, samples, sent, began := own("process_cpu_seconds_total"), own(appended), r.sent.Load(), time.Now()
	wait(max(2*interval, 70*time.Second)) // the rules run once a minute
	seconds := time.Since(began).Seconds()
	b.ReportMetric((own("process_cpu_seconds_total")-cpu)/seconds, "cores")
	b.ReportMetric((own(appended)-samples)/seconds, "samples/s")
	b.ReportMetric(float64(r.sent.Load()-sent)/seconds/1e3, "gzip-kB/s")
	b.ReportMetric(own("prometheus_tsdb_head_series"), "head-series")
	b.ReportMetric(memory(b, pid, "VmRSS")/1e6, "RSS-MB")
	b.ReportMetric(memory(b, pid, "VmHWM")/1e6, "peak-MB")
	b.ReportMetric(w.number(b, `avg(scrape_duration_seconds)`)*1e3, "scrape-ms")
	b.ReportMetric(w.number(b, `quantile(0.99, scrape_duration_seconds)`)*1e3, "scrape-p99-ms")
	b.Logf("the dearest rules: %s", dearest(b, web))
	for unit, groups := range map[string][]string{
		"alerts-s":  {"security-exporter", "security-exporter-runtime", "security-exporter-posture"},
		"records-s": {"security-exporter-hosts", "security-exporter-fleet"},
	} {
		total := 0.0
		for _, g := range groups {
			total += own(`prometheus_rule_group_last_duration_seconds{rule_group="[^"]*;` + g + `"}`)
		}
		b.ReportMetric(total, unit)
	}
}

// dearest are the rules whose last run took longest.
func dearest(b *testing.B, web string) string {
	b.Helper()
	_, body := get("http://" + web + "/api/v1/rules")
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name           string
					EvaluationTime float64
				}
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		b.Fatal(err)
	}
	var out []string
	for range 5 {
		name, longest := "", 0.0
		for _, g := range answer.Data.Groups {
			for i := range g.Rules {
				if r := &g.Rules[i]; r.EvaluationTime > longest {
					name, longest = r.Name, r.EvaluationTime
				}
			}
		}
		for _, g := range answer.Data.Groups {
			for i := range g.Rules {
				if g.Rules[i].Name == name {
					g.Rules[i].EvaluationTime = 0
				}
			}
		}
		out = append(out, fmt.Sprintf("%s %.2f s", name, longest))
	}
	return strings.Join(out, ", ")
}

// ownMetric is a value of Prometheus' own page. name is a regular expression.
func ownMetric(b *testing.B, web, name string) float64 {
	b.Helper()
	_, page := get("http://" + web + "/metrics")
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(page)
	if m == nil {
		b.Fatalf("Prometheus does not show %s", name)
	}
	value, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return value
}

// number is the answer to a query that has one.
func (w *world) number(b *testing.B, query string) float64 {
	b.Helper()
	_, body := get("http://" + w.web + "/api/v1/query?query=" + strings.ReplaceAll(query, " ", "+"))
	m := regexp.MustCompile(`"value":\[[0-9.]+,"([^"]+)"\]`).FindSubmatch(body)
	if m == nil {
		b.Fatalf("%s: %s", query, body)
	}
	value, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return value
}

// memory is a field of /proc/PID/status in bytes.
func memory(b *testing.B, pid int, field string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		b.Fatalf("no %s", field)
	}
	kB, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB * 1024
}

// TestRecording: what did not move on the real host does not, counters never
// go back, and the page has the same series.
func TestRecording(t *testing.T) {
	t.Parallel()
	const first = "# TYPE a counter\na{x=\"1 2\"} 5\na{x=\"3\"} 7\n# TYPE b gauge\nb 2.5\n"
	second := strings.NewReplacer(`"1 2"} 5`, `"1 2"} 8`, "b 2.5", "b 3.5").Replace(first)
	r := record([]byte(first), []byte(second), time.Second)
	if r.series != 3 || r.moving != 2 || r.plain != len(first) {
		t.Errorf("%d series, %d of them moving, %d bytes", r.series, r.moving, r.plain)
	}
	// The host 50 is as busy as the real one.
	got := string(r.page(50, 10*time.Second))
	want := regexp.MustCompile(`^# TYPE a counter\na\{x="1 2"\} 35\na\{x="3"\} 7\n# TYPE b gauge\nb (2\.[5-9]|3\.[0-5])\d*\n$`)
	if !want.MatchString(got) {
		t.Errorf("page:\n%s", got)
	}
}
