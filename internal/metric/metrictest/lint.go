// SPDX-License-Identifier: Apache-2.0

// Package metrictest checks metric names the way `promtool check metrics`
// does. Only tests import it.
package metrictest

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"security-exporter/internal/metric"
)

// FixedNames are the metrics whose names break a rule of promlint and stay as
// they are, because dashboards of an earlier exporter use them; the text says
// which rule.
func FixedNames() map[string]string {
	const days = "counts days, not seconds; the _seconds metric beside it follows the rule"
	return map[string]string{
		"security_ebpf_process_active_count":    "ends in _count",
		"linux_security_apparmor_profile_count": "ends in _count; it extends the fixed apparmor_profiles",
		"linux_security_package_count":          "ends in _count",
		"linux_security_auditd_rules_count":     "ends in _count",
		"linux_security_password_max_days":      days,
		"linux_security_password_min_days":      days,
		"linux_security_password_warn_days":     days,
	}
}

// LintPage is what `promtool check metrics` says about a page, without the
// fixed names.
func LintPage(page io.Reader) ([]string, error) {
	problems, err := promlint.New(page).Lint()
	if err != nil {
		return nil, fmt.Errorf("parse metrics page: %w", err)
	}
	return format(problems), nil
}

// LintTable is LintPage for a table of metrics, as if each had one series. A
// metric that is declared twice is an error.
func LintTable(table []*metric.Metric) ([]string, error) {
	reg := prometheus.NewPedanticRegistry()
	for _, m := range table {
		if err := reg.Register(oneSeries{m}); err != nil {
			return nil, fmt.Errorf("metric %s: %w", m.Name, err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather: %w", err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		return nil, fmt.Errorf("lint: %w", err)
	}
	return format(problems), nil
}

// oneSeries is a collector of one metric with one series.
type oneSeries struct{ metric *metric.Metric }

func (o oneSeries) Describe(ch chan<- *prometheus.Desc) { ch <- o.metric.Desc() }

func (o oneSeries) Collect(ch chan<- prometheus.Metric) {
	values := make([]string, len(o.metric.Labels))
	for i, l := range o.metric.Labels {
		values[i] = "x"
		if l.Values != nil {
			values[i] = l.Values[0]
		}
	}
	b := metric.NewBatch(1)
	b.Add(o.metric, 0, values...)
	b.Collect(ch)
}

func format(problems []promlint.Problem) []string {
	fixed := FixedNames()
	var out []string
	for _, p := range problems {
		if _, ok := fixed[p.Metric]; !ok {
			out = append(out, p.Metric+": "+p.Text)
		}
	}
	return out
}
