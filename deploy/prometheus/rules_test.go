// SPDX-License-Identifier: Apache-2.0

// Package prometheus holds the alerts and recording rules, and the tests that
// keep them in step with the metrics of the program.
package prometheus

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"security-exporter/deploy/grafana"
	"security-exporter/internal/harden"
	"security-exporter/internal/metric"
	"security-exporter/internal/posture"
	"security-exporter/internal/reload"
	"security-exporter/internal/sensor"
	"security-exporter/internal/testkit"
)

type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T, path string) []rule {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []rule }
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) == 0 {
		t.Fatalf("%s holds no rules", path)
	}
	return out
}

func bothFiles(t *testing.T) []rule {
	return append(readRules(t, "recording.yml"), readRules(t, "alerts.yml")...)
}

// targetLabels are those that Prometheus puts on every series.
var targetLabels = []string{"job", "instance"}

// vocabulary is what an expression may name: the labels of each metric, and
// their values if they are closed.
func vocabulary(t *testing.T) map[string]map[string][]string {
	words := map[string]map[string][]string{"up": {}}
	for _, m := range slices.Concat(harden.Metrics(), reload.Metrics(), sensor.Metrics(), posture.Metrics()) {
		words[m.Name] = labelsOf(m)
	}
	for _, r := range readRules(t, "recording.yml") {
		words[r.Record] = map[string][]string{}
		for _, l := range grouping(t, r.Expr) {
			words[r.Record][l] = nil
		}
	}
	return words
}

func labelsOf(m *metric.Metric) map[string][]string {
	out := map[string][]string{}
	for _, l := range m.Labels {
		out[l.Name] = l.Values
	}
	return out
}

func parse(t *testing.T, expr string) parser.Expr {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return e
}

// grouping is the by clause of a recording rule, which must have one.
func grouping(t *testing.T, expr string) []string {
	t.Helper()
	agg, ok := parse(t, expr).(*parser.AggregateExpr)
	if !ok || agg.Without {
		t.Fatalf("%s: a recording rule aggregates by labels", expr)
	}
	return agg.Grouping
}

// problems says what an expression names that does not exist.
func problems(e parser.Expr, words map[string]map[string][]string) []string {
	var out []string
	known := slices.Clone(targetLabels) // labels of any metric in the expression
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		have, ok := words[s.Name]
		if !ok {
			out = append(out, "no metric "+s.Name)
			return nil
		}
		for name := range have {
			known = append(known, name)
		}
		for _, m := range s.LabelMatchers {
			if m.Name != model.MetricNameLabel && !slices.Contains(targetLabels, m.Name) {
				out = append(out, badMatcher(s.Name, m, have)...)
			}
		}
		return nil
	})
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		var used []string
		switch n := n.(type) {
		case *parser.AggregateExpr:
			used = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				used = n.VectorMatching.MatchingLabels
			}
		}
		for _, l := range used {
			if !slices.Contains(known, l) {
				out = append(out, "no metric here has the label "+l)
			}
		}
		return nil
	})
	return out
}

// badMatcher says whether the metric lacks the label, or a closed label has no
// value that the matcher accepts, or has only such values.
func badMatcher(name string, m *labels.Matcher, have map[string][]string) []string {
	values, ok := have[m.Name]
	if !ok {
		return []string{name + " has no label " + m.Name}
	}
	if values == nil {
		return nil
	}
	matching := 0
	for _, v := range values {
		if m.Matches(v) {
			matching++
		}
	}
	if matching == 0 || matching == len(values) {
		return []string{name + ": no value, or every value, fits " + m.String()}
	}
	for _, v := range alternatives(m) {
		if !slices.Contains(values, v) {
			return []string{name + ": no value " + v + " of " + m.Name}
		}
	}
	return nil
}

var plain = regexp.MustCompile(`^[a-z0-9_|]+$`)

// alternatives are the values that a matcher spells out.
func alternatives(m *labels.Matcher) []string {
	if m.Type == labels.MatchEqual || m.Type == labels.MatchNotEqual {
		return []string{m.Value}
	}
	if plain.MatchString(m.Value) {
		return strings.Split(m.Value, "|")
	}
	return nil
}

func TestRulesNameWhatExists(t *testing.T) {
	t.Parallel()
	words := vocabulary(t)
	for _, r := range bothFiles(t) {
		for _, p := range problems(parse(t, r.Expr), words) {
			t.Errorf("%s%s: %s", r.Alert, r.Record, p)
		}
	}
}

// TestDashboardsNameWhatExists checks the queries of the dashboards likewise.
func TestDashboardsNameWhatExists(t *testing.T) {
	t.Parallel()
	words := vocabulary(t)
	for _, d := range grafana.Dashboards() {
		for _, p := range d.Panels {
			for _, q := range p.Queries {
				for _, problem := range problems(parse(t, grafana.Expand(q[0])), words) {
					t.Errorf("%s, %s: %s", d.Title, p.Title, problem)
				}
			}
		}
	}
}

func TestProblemsAreFound(t *testing.T) {
	t.Parallel()
	words := vocabulary(t)
	for expr, want := range map[string]string{
		`security_ebpf_nothing > 0`:                                                   "no metric security_ebpf_nothing",
		`security_ebpf_up{state="active"}`:                                            "security_ebpf_up has no label state",
		`security_ebpf_up{status="fine"}`:                                             `security_ebpf_up: no value, or every value, fits status="fine"`,
		`security_ebpf_up{status=~"active|fine"}`:                                     "security_ebpf_up: no value fine of status",
		`sum by (probe) (security_ebpf_up)`:                                           "no metric here has the label probe",
		`security_ebpf_up and on (probe) up`:                                          "no metric here has the label probe",
		`instance:security_ebpf_connect_refused:rate10m{type="refused"} > 0`:          "instance:security_ebpf_connect_refused:rate10m has no label type",
		`max by (job) (instance:linux_security_firewall_active:max offset 1d) and up`: "",
	} {
		got := strings.Join(problems(parse(t, expr), words), "; ")
		if got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

var variable = regexp.MustCompile(`\$labels\.(\w+)`)

// TestAlertsAreWritten checks what promtool does not: the runbook, and that an
// annotation names no label that the alert has not.
func TestAlertsAreWritten(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	words := vocabulary(t)
	sections := map[string]string{}
	for _, s := range strings.Split("\n"+string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[name] = text
	}
	for _, r := range readRules(t, "alerts.yml") {
		text, ok := sections[r.Alert]
		if !ok {
			t.Errorf("%s has no section in docs/runbooks.md", r.Alert)
		}
		delete(sections, r.Alert)
		for _, part := range []string{"**Means**", "**Look at**", "**Often false because**"} {
			if !strings.Contains(text, part) {
				t.Errorf("docs/runbooks.md: %s does not say %s", r.Alert, part)
			}
		}
		if want := "docs/runbooks.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
			t.Errorf("%s: runbook %q, want %q", r.Alert, r.Annotations["runbook"], want)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		have := slices.Clone(targetLabels)
		parser.Inspect(parse(t, r.Expr), func(n parser.Node, _ []parser.Node) error {
			if s, ok := n.(*parser.VectorSelector); ok {
				for l := range words[s.Name] {
					have = append(have, l)
				}
			}
			return nil
		})
		for _, m := range variable.FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
			if !slices.Contains(have, m[1]) {
				t.Errorf("%s: an annotation names the label %s, which it has not", r.Alert, m[1])
			}
		}
	}
	for name := range sections {
		t.Errorf("docs/runbooks.md has the section %s, which is no alert", name)
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		testkit.Missing(t, "promtool (Debian's package prometheus) is missing")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolChecksRules(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "alerts.yml", "recording.yml")
}

func TestPromtoolTestsRules(t *testing.T) {
	t.Parallel()
	promtool(t, append([]string{"test", "rules"}, cases...)...)
}
