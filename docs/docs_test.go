// SPDX-License-Identifier: Apache-2.0

// Package docs holds the documentation, and the tests that keep the parts of
// it that come from the code equal to the code. Rewrite them with `make docs`.
package docs

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"security-exporter/internal/buildinfo"
	"security-exporter/internal/config"
	"security-exporter/internal/harden"
	"security-exporter/internal/metric"
	"security-exporter/internal/metric/metrictest"
	"security-exporter/internal/posture"
	"security-exporter/internal/registry"
	"security-exporter/internal/reload"
	"security-exporter/internal/sensor"
	"security-exporter/internal/stream"
)

var update = flag.Bool("update", false, "rewrite the generated files")

// sections are the tables of every package that exports metrics.
func sections() []metric.Section {
	return []metric.Section{
		{
			Title: "The exporter",
			Text: "`promhttp_metric_handler_errors_total` counts scrapes that could not be complete; the reason is in the log.\n" +
				"`--collector.go-metrics` adds the `go_*` and `process_*` metrics of the Prometheus client library.",
			Metrics: slices.Concat(buildinfo.Metrics(), harden.Metrics(), reload.Metrics()),
		},
		{
			Title: "Runtime",
			Text: "Counted in the kernel with `--ebpf.enabled`. All series exist whatever the state; `security_ebpf_probe_up` says\n" +
				"whether a zero means that nothing happened. What each probe cannot see is in [hooks.md](hooks.md).",
			Metrics: append(sensor.Metrics(), stream.Metrics()...),
		},
		{
			Title: "Posture",
			Text: "Always on. Where each value comes from, and what it does not see, is in [posture.md](posture.md); the checks are in\n" +
				"[checks.md](checks.md). `--no-collector.legacy-names` leaves out the names of the earlier exporter.",
			Metrics: posture.Metrics(),
		},
	}
}

const generated = "<!-- Generated from the code by `make docs`; do not edit. -->\n\n"

func TestMetricsPage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(generated + "# Metrics\n\n" +
		"A closed label lists its values after a colon; each of its series exists with 0 from the first scrape,\n" +
		"except for metrics that show a present state (`*_up`, `*_info`). Label values are valid UTF-8 of at most\n" +
		"128 bytes, with control and other unprintable characters replaced.\n\n")
	if err := metric.WriteMarkdown(&b, sections()); err != nil {
		t.Fatal(err)
	}
	if err := golden("metrics.md", b.Bytes(), *update); err != nil {
		t.Error(err)
	}
}

func TestFlagsPage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(generated + "# Flags\n\n" +
		"`-flag`, `--flag`, `--flag=true`, `--flag=false` and `--no-flag` all work; a value follows `=` or comes as\n" +
		"the next argument. A bad value is one line on stderr and exit code 2, before anything is loaded.\n\n")
	if err := config.WriteFlags(&b, registry.Known()); err != nil {
		t.Fatal(err)
	}
	if err := golden("flags.md", b.Bytes(), *update); err != nil {
		t.Error(err)
	}
}

func TestConfigSchema(t *testing.T) {
	var b bytes.Buffer
	if err := config.WriteSchema(&b, registry.Known()); err != nil {
		t.Fatal(err)
	}
	if err := golden("config.schema.json", b.Bytes(), *update); err != nil {
		t.Error(err)
	}
}

func TestChecksPage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(generated + "# Checks\n\n" +
		"Each row is one check of the collector `checks`. `linux_security_check_passed{check,section}` is 1 if the sentence\n" +
		"holds and 0 if not; there is no series where the host has no such thing. `check_error` is 1 if something could not be\n" +
		"read: a finding is certain then, a pass is not and is left out. The ids are keys of `checks.waive` in the configuration\n" +
		"file ([config.example.yml](config.example.yml)). For sshd, a bad value inside of a `Match` block fails the check too. An\n" +
		"account counts as one with a password if its hash is there and not locked. What `sysctl.expect` of the configuration\n" +
		"file names is expected in the checks of the kernel as well.\n\n" +
		"| check | section | what a pass means |\n|---|---|---|\n")
	for _, c := range posture.Checks() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.ID, c.Section, c.Help)
	}
	if err := golden("checks.md", b.Bytes(), *update); err != nil {
		t.Error(err)
	}
}

func TestMetricNames(t *testing.T) {
	var all []*metric.Metric
	for _, s := range sections() {
		all = append(all, s.Metrics...)
	}
	problems, err := metrictest.LintTable(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// golden compares got with the file at path, or rewrites the file if update
// is set. The error names the first line that differs.
func golden(path string, got []byte, update bool) error {
	if update {
		return os.WriteFile(path, got, 0o644)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || !bytes.Equal(g[i], w[i]) {
			return fmt.Errorf("%s:%d: is %q, should be %q; run make docs", path, i+1, at(w, i), at(g, i))
		}
	}
	return nil
}

func at(lines [][]byte, i int) []byte {
	if i < len(lines) {
		return lines[i]
	}
	return nil
}
