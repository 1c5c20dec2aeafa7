// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

// fixedAgainstTheRules are names of the earlier exporter that promtool would
// spell otherwise; they stay, so that dashboards go on working.
var fixedAgainstTheRules = regexp.MustCompile(`^(linux_security_(apparmor_profile|auditd_rules|package)_count|security_ebpf_process_active_count) non-histogram and non-summary metrics should not have "_count" suffix$` +
	`|^linux_security_password_(max|min|warn)_days use base unit "seconds" instead of "days"$`)

// TestPromtoolChecksThePage has Prometheus' own linter read the real page.
func TestPromtoolChecksThePage(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		testkit.Missing(t, "promtool (Debian's package prometheus) is missing")
	}
	p := start(t)
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(p.page(t))
	out, err := cmd.CombinedOutput()
	// 3 is what promtool returns for remarks.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !fixedAgainstTheRules.MatchString(line) {
			t.Error(line)
		}
	}
	p.stop(t)
}
