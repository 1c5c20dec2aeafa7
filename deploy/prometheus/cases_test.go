// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// cases are what promtool runs against the alerts.
var cases = []string{"alerts_test.yml", "alerts_day_test.yml"}

// ruleCase is one run of promtool: series, and what fires at a time.
type ruleCase struct {
	Name        string
	InputSeries []struct{ Series string } `yaml:"input_series"`
	AlertTests  []struct {
		Alertname string
		Expected  []struct {
			Labels map[string]string `yaml:"exp_labels"`
		} `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

func readCases(t *testing.T) []ruleCase {
	t.Helper()
	var out []ruleCase
	for _, path := range cases {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Tests []ruleCase }
		if err := yaml.Unmarshal(data, &file); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, file.Tests...)
	}
	return out
}

// metricsOf are the metrics that an expression reads, and behind a recorded
// series those that it is made of.
func metricsOf(t *testing.T, expr string, recorded map[string]string) []string {
	var out []string
	parser.Inspect(parse(t, expr), func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			if source, ok := recorded[s.Name]; ok {
				out = append(out, metricsOf(t, source, recorded)...)
			} else {
				out = append(out, s.Name)
			}
		}
		return nil
	})
	return out
}

// hosts are the instances in a case that have one of the metrics. In a case
// with the hosts of several alerts, those of one begin with its name.
func (c *ruleCase) hosts(t *testing.T, alert string, metrics []string) []string {
	own := strings.ToLower(strings.TrimPrefix(alert, "Security"))
	var out []string
	for _, in := range c.InputSeries {
		s, ok := parse(t, strings.TrimSpace(in.Series)).(*parser.VectorSelector)
		if !ok {
			t.Fatalf("%s: %s is no series", c.Name, in.Series)
		}
		host := ""
		for _, m := range s.LabelMatchers {
			if m.Name == "instance" {
				host = m.Value
			}
		}
		shared := len(c.AlertTests) > 1 && !strings.HasPrefix(host, own)
		if slices.Contains(metrics, s.Name) && !shared {
			out = append(out, host)
		}
	}
	return out
}

// TestEveryAlertHasCases: an alert must be expected for a host at least once,
// and at least once not be expected for a host that has its metrics, so that
// it is not silent for want of data.
func TestEveryAlertHasCases(t *testing.T) {
	t.Parallel()
	recorded := map[string]string{}
	for _, r := range readRules(t, "recording.yml") {
		recorded[r.Record] = r.Expr
	}
	all := readCases(t)
	for _, r := range readRules(t, "alerts.yml") {
		metrics := metricsOf(t, r.Expr, recorded)
		fires, silent := 0, 0
		for _, c := range all {
			for _, a := range c.AlertTests {
				if a.Alertname != r.Alert {
					continue
				}
				expected := map[string]bool{}
				for _, e := range a.Expected {
					fires++
					expected[e.Labels["instance"]] = true
				}
				for _, host := range c.hosts(t, r.Alert, metrics) {
					if !expected[host] && !expected[""] {
						silent++
					}
				}
			}
		}
		if fires == 0 || silent == 0 {
			t.Errorf("%s: %d hosts in the cases on which it fires, %d on which it does not; both are needed", r.Alert, fires, silent)
		}
	}
}

var title = regexp.MustCompile(`^(Security\w+) (fires|is silent)(:|$)`)

// TestCasesSayWhatTheyShow compares the name of each case with what it
// expects, and its series with the metrics that there are: a case with a
// misspelt one would always be silent.
func TestCasesSayWhatTheyShow(t *testing.T) {
	t.Parallel()
	words := vocabulary(t)
	for _, c := range readCases(t) {
		for _, in := range c.InputSeries {
			for _, p := range problems(parse(t, strings.TrimSpace(in.Series)), words) {
				t.Errorf("%s: %s: %s", c.Name, in.Series, p)
			}
		}
		if len(c.AlertTests) != 1 {
			continue // the day: each host has a comment of its own
		}
		m, a := title.FindStringSubmatch(c.Name), c.AlertTests[0]
		if m == nil || m[1] != a.Alertname || (m[2] == "fires") != (len(a.Expected) > 0) {
			t.Errorf("%s: tests %s and expects %d alerts", c.Name, a.Alertname, len(a.Expected))
		}
	}
}
