// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
)

// page is one scrape: values by series, as name{label="value",...} with the
// labels sorted by name.
type page map[string]float64

// scrape gathers through a registry, which refuses duplicate label sets and
// whatever else Prometheus would.
func scrape(m *Manager) (page, error) {
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(m); err != nil {
		return nil, err
	}
	families, err := reg.Gather()
	if err != nil {
		return nil, err
	}
	out := page{}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			var labels []string
			for _, l := range series.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := family.GetName()
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			out[key] = series.GetCounter().GetValue() + series.GetGauge().GetValue()
		}
	}
	return out, nil
}

// problems are the series of closed label sets that the page lacks.
func (p page) problems(m *Manager) []string {
	var out []string
	for _, row := range m.all {
		if row.Sparse {
			continue
		}
		for i := range row.Size() {
			var labels []string
			for l, value := range row.LabelValues(i) {
				labels = append(labels, fmt.Sprintf("%s=%q", row.Labels[l].Name, value))
			}
			sort.Strings(labels)
			key := row.Name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			if _, ok := p[key]; !ok {
				out = append(out, "no series "+key)
			}
		}
	}
	if n := len(p.with("security_ebpf_up{")); n != 1 {
		out = append(out, fmt.Sprintf("%d series of security_ebpf_up", n))
	}
	for _, name := range abi.Probes {
		if _, _, err := p.info(name); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}

// with are the series that begin so, sorted.
func (p page) with(prefix string) []string {
	var out []string
	for key := range p {
		if strings.HasPrefix(key, prefix) {
			out = append(out, key)
		}
	}
	sort.Strings(out)
	return out
}

// info is the state and reason of a probe.
func (p page) info(name string) (state, reason string, err error) {
	var found []string
	for _, key := range p.with("security_ebpf_probe_info{") {
		if strings.Contains(key, fmt.Sprintf("probe=%q", name)) {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("%d series of security_ebpf_probe_info for %s", len(found), name)
	}
	field := func(label string) string {
		_, rest, _ := strings.Cut(found[0], label+`="`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	return field("state"), field("reason"), nil
}

// mustScrape fails the test unless the page is complete.
func mustScrape(t testing.TB, m *Manager) page {
	t.Helper()
	p, err := scrape(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range p.problems(m) {
		t.Error(problem)
	}
	return p
}

func (p page) expectUp(t testing.TB, status string, up float64) {
	t.Helper()
	key := fmt.Sprintf("security_ebpf_up{status=%q}", status)
	if got, ok := p[key]; !ok || got != up {
		t.Errorf("%v, want %s %v", p.with("security_ebpf_up"), key, up)
	}
}

func (p page) expectProbe(t testing.TB, name, state, reason string) {
	t.Helper()
	gotState, gotReason, err := p.info(name)
	if err != nil || gotState != state || gotReason != reason {
		t.Errorf("%s: %s, %s, %v, want %s, %s", name, gotState, gotReason, err, state, reason)
	}
	up := 0.0
	if state == "attached" {
		up = 1
	}
	if got := p[fmt.Sprintf("security_ebpf_probe_up{probe=%q}", name)]; got != up {
		t.Errorf("probe_up of %s is %v", name, got)
	}
}

// defaults are the options that a plain --ebpf.enabled gives.
func defaults(handler slog.Handler, probes ...string) Options {
	if probes == nil {
		probes = Names()
	}
	return Options{
		Enabled: true, Probes: probes, SampleRate: 1, MaxEventsPerSecond: 5000,
		Rules:  []config.FileRule{},
		ProcFS: "/proc", SysFS: "/sys", RootFS: "/", Logger: slog.New(handler),
	}
}
