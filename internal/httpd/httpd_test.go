// SPDX-License-Identifier: Apache-2.0

package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/exporter-toolkit/web"

	"security-exporter/internal/metric"
)

// running is a server that a test talks to.
type running struct {
	addrs []net.Addr
	stop  context.CancelFunc
	done  chan error
	log   *logBuffer
}

func (r *running) url(path string) string { return "http://" + r.addrs[0].String() + path }

// wait ends the server and returns how long that took.
func (r *running) wait(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("server: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not stop")
	}
	return time.Since(start)
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func options(log io.Writer, addrs ...string) Options {
	none := ""
	return Options{
		Web:           web.FlagConfig{WebListenAddresses: &addrs, WebConfigFile: &none},
		TelemetryPath: "/metrics",
		Registry:      prometheus.NewRegistry(),
		Ready:         func() []string { return nil },
		Version:       "test <1>",
		Logger:        slog.New(slog.NewTextHandler(log, nil)),
	}
}

func start(t *testing.T, change func(*Options)) *running {
	t.Helper()
	log := &logBuffer{}
	opts := options(log, "127.0.0.1:0")
	if change != nil {
		change(&opts)
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{addrs: addrs, stop: stop, done: make(chan error, 1), log: log}
	go func() { r.done <- s.Wait(ctx) }()
	t.Cleanup(func() {
		stop()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// collector is a metric "x" whose collection a test controls.
type collector struct {
	collect func(chan<- prometheus.Metric)
}

var desc = prometheus.NewDesc("x", "An x.", nil, nil)

func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- desc }
func (c collector) Collect(ch chan<- prometheus.Metric) { c.collect(ch) }

func x(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1)
}

func TestPaths(t *testing.T) {
	t.Parallel()
	var reasons []string
	var mu sync.Mutex
	r := start(t, func(o *Options) {
		o.Registry.MustRegister(collector{x})
		o.TelemetryPath = "/a/metrics"
		o.Ready = func() []string {
			mu.Lock()
			defer mu.Unlock()
			return reasons
		}
	})
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/a/metrics", 200, "\nx 1\n"},
		{"/healthz", 200, "ok\n"},
		{"/readyz", 200, "ok\n"},
		{"/", 200, `<a href="/a/metrics">`},
		{"/", 200, "test &lt;1&gt;"},
		{"/metrics", 404, "not found"},
		{"/a/metrics/", 404, "not found"},
		{"/healthz/x", 404, "not found"},
		{"/debug/pprof/", 404, "not found"},
		{"//", 404, "not found"},
	} {
		if code, body, _ := get(t, r.url(c.path)); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %q, want %d with %q", c.path, code, body, c.code, c.want)
		}
	}
	mu.Lock()
	reasons = []string{"probe file: denied", "still starting"}
	mu.Unlock()
	if code, body, _ := get(t, r.url("/readyz")); code != 503 || body != "probe file: denied\nstill starting\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, _, _ := get(t, r.url("/healthz")); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	r.wait(t)
}

func TestMethods(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for method, want := range map[string]int{"HEAD": 200, "POST": 405, "DELETE": 405} {
		req, err := http.NewRequestWithContext(t.Context(), method, r.url("/metrics"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, resp.StatusCode, want)
		}
	}
	r.wait(t)
}

func TestTelemetryPathMustBeFree(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		opts := options(io.Discard, ":0")
		opts.TelemetryPath = path
		if _, err := New(opts); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}

func TestBadCollectorLeavesTheOthers(t *testing.T) {
	t.Parallel()
	bad := prometheus.NewDesc("bad", "A bad one.", nil, nil)
	r := start(t, func(o *Options) {
		o.Registry.MustRegister(collector{func(ch chan<- prometheus.Metric) {
			x(ch)
			ch <- prometheus.NewInvalidMetric(bad, errors.New("the cable is loose"))
		}})
	})
	if code, body, _ := get(t, r.url("/metrics")); code != 200 || !strings.Contains(body, "\nx 1\n") {
		t.Errorf("%d %q", code, body)
	}
	if _, body, _ := get(t, r.url("/metrics")); !strings.Contains(body, `promhttp_metric_handler_errors_total{cause="gathering"} 1`) {
		t.Errorf("the error was not counted: %q", body)
	}
	if !strings.Contains(r.log.String(), "the cable is loose") {
		t.Errorf("the error was not logged: %q", r.log.String())
	}
	r.wait(t)
}

func TestScrapesAreLimited(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, MaxScrapes+1), make(chan struct{})
	freed := sync.OnceFunc(func() { close(release) })
	defer freed()
	r := start(t, func(o *Options) {
		o.Registry.MustRegister(collector{func(ch chan<- prometheus.Metric) {
			entered <- struct{}{}
			<-release
			x(ch)
		}})
	})
	codes := make(chan int, MaxScrapes)
	for range MaxScrapes {
		go func() {
			resp, err := http.Get(r.url("/metrics"))
			if err != nil {
				codes <- 0
				return
			}
			_ = resp.Body.Close()
			codes <- resp.StatusCode
		}()
	}
	for range MaxScrapes {
		<-entered
	}
	if code, _, _ := get(t, r.url("/metrics")); code != 503 {
		t.Errorf("one too many: %d, want 503", code)
	}
	if code, _, _ := get(t, r.url("/healthz")); code != 200 {
		t.Errorf("/healthz while busy: %d", code)
	}
	freed()
	for range MaxScrapes {
		if code := <-codes; code != 200 {
			t.Errorf("a scrape within the limit: %d", code)
		}
	}
	r.wait(t)
}

func TestShutdownLetsScrapesFinish(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	r := start(t, func(o *Options) {
		o.Registry.MustRegister(collector{func(ch chan<- prometheus.Metric) {
			close(entered)
			time.Sleep(400 * time.Millisecond)
			x(ch)
		}})
	})
	type answer struct {
		body string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		resp, err := http.Get(r.url("/metrics"))
		if err != nil {
			got <- answer{"", err}
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		got <- answer{string(body), err}
	}()
	<-entered
	took := r.wait(t)
	if a := <-got; a.err != nil || !strings.Contains(a.body, "\nx 1\n") {
		t.Errorf("the scrape was cut: %q %v", a.body, a.err)
	}
	if took < 200*time.Millisecond || took > DrainTimeout {
		t.Errorf("took %v", took)
	}
	if _, err := net.Dial("tcp", r.addrs[0].String()); err == nil {
		t.Error("the port is still open")
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(o *Options) {
		o.Registry.MustRegister(collector{func(chan<- prometheus.Metric) {
			close(entered)
			<-release
		}})
	})
	defer close(release)
	go func() {
		if resp, err := http.Get(r.url("/metrics")); err == nil {
			_ = resp.Body.Close()
		}
	}()
	// A client that connects and says nothing must not delay it further.
	c, err := net.Dial("tcp", r.addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	<-entered
	if took := r.wait(t); took < DrainTimeout || took > DrainTimeout+300*time.Millisecond {
		t.Errorf("took %v, want about %v", took, DrainTimeout)
	}
	if !strings.Contains(r.log.String(), "Connections were cut") {
		t.Errorf("nothing was logged: %q", r.log.String())
	}
}

func TestStartReportsPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	freeAddr := free.Addr().String()
	_ = free.Close()
	s, err := New(options(io.Discard, freeAddr, taken.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Start()
	want := fmt.Sprintf("cannot serve: listen tcp %s: bind: address already in use", taken.Addr())
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	again, err := net.Listen("tcp", freeAddr)
	if err != nil {
		t.Errorf("the other address is still in use: %v", err)
	} else {
		_ = again.Close()
	}
}

func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) {
		o.Web.WebListenAddresses = &[]string{"127.0.0.1:0", "127.0.0.1:0"}
	})
	if len(r.addrs) != 2 || r.addrs[0].String() == r.addrs[1].String() {
		t.Fatalf("addresses %v", r.addrs)
	}
	for _, a := range r.addrs {
		if code, _, _ := get(t, "http://"+a.String()+"/healthz"); code != 200 {
			t.Errorf("%v: %d", a, code)
		}
	}
	r.wait(t)
}

func TestLargeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c, err := net.Dial("tcp", r.addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("a", 2*maxHeaderBytes))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, " 431 ") {
		t.Errorf("%q %v", line, err)
	}
	r.wait(t)
}

// BenchmarkScrape is a page of 1,500 series, without the network.
func BenchmarkScrape(b *testing.B) {
	m := metric.New(metric.Gauge, "ports_use_info", "A port.", metric.Open("protocol", ""), metric.Open("local_ip", ""),
		metric.Open("local_port", ""), metric.Open("state", ""), metric.Open("process", ""), metric.Open("exe_path", ""))
	batch := metric.NewBatch(0)
	for i := range 1500 {
		batch.Add(m, 1, "tcp", "*", fmt.Sprint(i), "LISTEN", "nginx", "/usr/sbin/nginx")
	}
	opts := options(io.Discard, ":0")
	opts.Registry.MustRegister(collector{batch.Collect})
	h, err := newHandler(opts)
	if err != nil {
		b.Fatal(err)
	}
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				r.Header.Set("Accept-Encoding", encoding)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK || w.Body.Len() < 1500 {
					b.Fatal(w.Code, w.Body.Len())
				}
			}
		})
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method string
		off          bool
		err          error
		origin       string
		code         int
		body         string
		calls        int
	}{
		{"done", "POST", false, nil, "", 200, "ok\n", 1},
		{"refused", "POST", false, errors.New("/c.yml:3: no"), "", 500, "/c.yml:3: no\n", 1},
		{"off", "POST", true, nil, "", 403, "the lifecycle API is off; start the exporter with --web.enable-lifecycle\n", 0},
		{"GET", "GET", false, nil, "", 405, "only POST is allowed\n", 0},
		{"GET and off", "GET", true, nil, "", 405, "only POST is allowed\n", 0},
		{"PUT", "PUT", false, nil, "", 405, "only POST is allowed\n", 0},
		{"of another site", "POST", false, nil, "https://other.example", 403, "cross-origin request detected, and/or browser is out of date: Sec-Fetch-Site is missing, and Origin does not match Host\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			r := start(t, func(o *Options) {
				if !c.off {
					o.Reload = func(context.Context) error { calls++; return c.err }
				}
			})
			req, err := http.NewRequestWithContext(t.Context(), c.method, r.url("/-/reload"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != c.code || string(body) != c.body || calls != c.calls {
				t.Errorf("%d %q, %v, %d calls; want %d %q, %d", resp.StatusCode, body, err, calls, c.code, c.body, c.calls)
			}
		})
	}
}
