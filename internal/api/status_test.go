// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"security-exporter/internal/metric"
)

// page collects rows as the halves of the exporter do.
type page struct{ *metric.Batch }

func (page) Describe(chan<- *prometheus.Desc) {}

func TestMetricStatus(t *testing.T) {
	t.Parallel()
	b := metric.NewBatch(0)
	probe := metric.Open("probe", "name")
	gauge := func(name string, labels ...metric.Label) *metric.Metric {
		return metric.New(metric.Gauge, name, "Help.", labels...)
	}
	b.Add(gauge("security_ebpf_up", metric.Open("status", "state")), 1, "partial")
	b.Add(gauge("security_ebpf_sample_rate"), 4)
	info := gauge("security_ebpf_probe_info", probe, metric.Open("hook", ""), metric.Open("state", ""), metric.Open("reason", ""))
	b.Add(info, 1, "file", "fentry", "attached", "none")
	b.Add(info, 1, "kernel", "", "error", "verifier")
	b.Add(gauge("security_ebpf_events_per_second", probe), 2.5, "file")
	b.Add(metric.New(metric.Counter, "security_ebpf_events_total", "Help.", probe), 7, "file")
	b.Add(metric.New(metric.Counter, "security_ebpf_events_sampled_total", "Help.", probe), 4, "file")
	lost := metric.New(metric.Counter, "security_ebpf_events_lost_total", "Help.", probe, metric.Open("reason", ""))
	b.Add(lost, 1, "file", "budget")
	b.Add(lost, 2, "file", "ring_full")
	b.Add(metric.New(metric.Counter, "security_ebpf_events_dropped_total", "Help.", metric.Open("output", "")), 5, "api")
	collector := metric.Open("collector", "")
	b.Add(gauge("linux_security_scrape_collector_success", collector), 1, "sshd")
	b.Add(gauge("linux_security_scrape_collector_success", collector), 0, "audit")
	b.Add(gauge("linux_security_scrape_collector_duration_seconds", collector), 0.5, "sshd")
	reg := prometheus.NewRegistry()
	reg.MustRegister(page{b})
	m := &MetricStatus{Gatherer: reg, Ready: func() []string { return []string{"still starting"} }, Started: time.Unix(0, 0)}
	got, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":"devel","revision":"unknown","started":"1970-01-01T00:00:00Z","not_ready":["still starting"],` +
		`"runtime":{"state":"partial","sample_rate":4,"probes":[` +
		`{"name":"file","state":"attached","reason":"none","hook":"fentry","events_per_second":2.5,"events":7,"events_delivered":0,"events_sampled":4,"events_lost":3},` +
		`{"name":"kernel","state":"error","reason":"verifier","hook":"","events_per_second":0,"events":0,"events_delivered":0,"events_sampled":0,"events_lost":0}],"events_dropped":{"api":5}},` +
		`"collectors":[{"name":"audit","success":false,"duration_seconds":0},{"name":"sshd","success":true,"duration_seconds":0.5}]}`
	got.Revision = "unknown"
	text, _ := json.Marshal(got)
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestMetricStatusFails(t *testing.T) {
	t.Parallel()
	m := &MetricStatus{Ready: func() []string { return nil }, Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return nil, errors.New("broken")
	})}
	if _, err := m.Status(); err == nil {
		t.Error("no error")
	}
}
