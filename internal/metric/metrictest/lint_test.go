// SPDX-License-Identifier: Apache-2.0

package metrictest

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"security-exporter/internal/metric"
)

func TestLintTable(t *testing.T) {
	t.Parallel()
	got, err := LintTable([]*metric.Metric{
		metric.New(metric.Counter, "good_total", "A good one.", metric.Closed("a", "p")),
		metric.New(metric.Counter, "bad", "No _total.", metric.Open("a", "")),
		metric.New(metric.Gauge, "security_ebpf_process_active_count", "A fixed name."),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`bad: counter metrics should have "_total" suffix`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	m := metric.New(metric.Gauge, "x", "An x.")
	if _, err := LintTable([]*metric.Metric{m, m}); err == nil || !strings.Contains(err.Error(), "metric x: ") {
		t.Errorf("a metric declared twice: error %v", err)
	}
}

func TestLintPage(t *testing.T) {
	t.Parallel()
	got, err := LintPage(strings.NewReader("# HELP a_days A.\n# TYPE a_days gauge\na_days 1\n" +
		"# HELP linux_security_password_max_days A.\n# TYPE linux_security_password_max_days gauge\nlinux_security_password_max_days 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`a_days: use base unit "seconds" instead of "days"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := LintPage(strings.NewReader("a{ 1\n")); err == nil {
		t.Error("a page that does not parse was taken")
	}
}

// An exemption that nothing needs would hide the next mistake.
func TestFixedNamesAreNeeded(t *testing.T) {
	t.Parallel()
	for name := range FixedNames() {
		reg := prometheus.NewRegistry()
		reg.MustRegister(oneSeries{metric.New(metric.Gauge, name, "A fixed name.")})
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Fatal(err)
		}
		if len(problems) == 0 {
			t.Errorf("%s needs no exemption", name)
		}
	}
}
