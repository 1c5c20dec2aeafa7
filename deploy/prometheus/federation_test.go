// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"security-exporter/deploy/grafana"
	"security-exporter/internal/posture"
	"security-exporter/internal/sensor"
)

// serverConfig is what the tests read of a configuration of Prometheus.
type serverConfig struct {
	ScrapeConfigs []struct {
		Params  map[string][]string
		Dropped []relabel `yaml:"metric_relabel_configs"`
	} `yaml:"scrape_configs"`
	RemoteWrite []struct {
		Kept []relabel `yaml:"write_relabel_configs"`
	} `yaml:"remote_write"`
}

type relabel struct{ Regex, Action string }

func (r relabel) matches(name string) bool {
	return regexp.MustCompile("^(?:" + r.Regex + ")$").MatchString(name)
}

func readConfig(t *testing.T, path string) serverConfig {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c serverConfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return c
}

// namesIn are the series that an expression reads.
func namesIn(t *testing.T, expr string) []string {
	var out []string
	parser.Inspect(parse(t, expr), func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			out = append(out, s.Name)
		}
		return nil
	})
	return out
}

// read are the series that the panels of a dashboard read.
func read(t *testing.T, d grafana.Dashboard) []string {
	var out []string
	for _, p := range d.Panels {
		for _, q := range p.Queries {
			out = append(out, namesIn(t, grafana.Expand(q[0]))...)
		}
	}
	return out
}

func TestPromtoolChecksConfigurations(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "config", "shard.yml")
	promtool(t, "check", "config", "federation.yml")
}

// TestFleetReadsRecordedSeries: the dashboard of a fleet adds up no host by
// itself, and what it reads is sent on to a store.
func TestFleetReadsRecordedSeries(t *testing.T) {
	t.Parallel()
	recorded := map[string]bool{}
	for _, r := range readRules(t, "recording.yml") {
		recorded[r.Record] = true
	}
	sent := readConfig(t, "shard.yml").RemoteWrite[0].Kept[0]
	for _, d := range grafana.Dashboards() {
		if d.File != "fleet.json" {
			continue
		}
		for _, name := range read(t, d) {
			if !recorded[name] || !sent.matches(name) {
				t.Errorf("%s reads %s: recorded %v, sent on %v", d.Title, name, recorded[name], sent.matches(name))
			}
		}
	}
}

var seriesName = regexp.MustCompile("`(linux_security_[a-z0-9_]+)")

// TestNothingReadsWhatIsDropped: shard.yml drops metrics that there are, and
// that no rule, dashboard or runbook reads.
func TestNothingReadsWhatIsDropped(t *testing.T) {
	t.Parallel()
	var names []string
	for _, r := range bothFiles(t) {
		names = append(names, namesIn(t, r.Expr)...)
	}
	for _, d := range grafana.Dashboards() {
		names = append(names, read(t, d)...)
	}
	page, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range seriesName.FindAllStringSubmatch(string(page), -1) {
		names = append(names, m[1])
	}
	dropped := readConfig(t, "shard.yml").ScrapeConfigs[0].Dropped[0]
	for _, name := range names {
		if dropped.matches(name) {
			t.Errorf("shard.yml drops %s", name)
		}
	}
	for _, part := range strings.Split(strings.Trim(strings.TrimPrefix(dropped.Regex, "linux_security_"), "()"), "|") {
		found := false
		for _, m := range append(posture.Metrics(), sensor.Metrics()...) {
			found = found || relabel{Regex: "linux_security_" + part}.matches(m.Name)
		}
		if !found {
			t.Errorf("shard.yml drops linux_security_%s, which does not exist", part)
		}
	}
}

// checkFederation takes from the Prometheus of the end-to-end test what
// federation.yml takes: all that the dashboard of a fleet reads, and alerts.
func checkFederation(t *testing.T, w *world) {
	t.Helper()
	match := url.Values{"match[]": readConfig(t, "federation.yml").ScrapeConfigs[0].Params["match[]"]}
	code, page := get("http://" + w.web + "/federate?" + match.Encode())
	if code != http.StatusOK {
		t.Fatalf("federate: %d %s", code, page)
	}
	for _, name := range append(read(t, grafana.Dashboards()[0]), "ALERTS") {
		if !strings.Contains(string(page), "\n"+name+"{") {
			t.Errorf("federation.yml does not take %s", name)
		}
	}
	if strings.Contains(string(page), "\nlinux_security_") || strings.Contains(string(page), "\nsecurity_ebpf_") {
		t.Error("federation.yml takes series of hosts")
	}
}
