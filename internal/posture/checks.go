// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads what the other collectors read, through the same functions, and says
// of each row of the catalogue (checks_table.go) whether the host is as it
// should be. PAM stacks (pam.d(5)) and journald.conf(5) are read here only.

// check is one row of the catalogue.
type check struct {
	id, section string
	// help is what a pass means, one sentence.
	help string
	// run counts what is wrong. ErrNotApplicable and hostfs.ErrNotExist mean
	// that the host has no such thing. With another error, no finding does not
	// mean that there is none.
	run func(h *checkHost) (findings int, err error)
}

// CheckInfo describes a check for the configuration and the documentation.
type CheckInfo struct {
	// ID is the value of the label check and the key of a waiver.
	ID, Section string
	// Help is what a pass means, one sentence with a dot.
	Help string
}

// Checks lists the catalogue in the order of the documentation.
func Checks() []CheckInfo {
	var out []CheckInfo
	for _, c := range checkTable() {
		out = append(out, CheckInfo{c.id, c.section, c.help})
	}
	return out
}

// CheckIDs lists the ids of the checks, which Settings.Waivers may hold.
func CheckIDs() []string {
	var out []string
	for _, c := range checkTable() {
		out = append(out, c.id)
	}
	return out
}

type checks struct {
	table                  []check
	audit                  func(context.Context) (*auditState, error)
	passed, failed, waived *metric.Metric
	// homes is the root file system of from, with hung calls of its own.
	from  *hostfs.Root
	homes *hostfs.Tree
}

func checksCollector() Spec { return checksWith(queryAudit) }

// checksWith takes the source of the audit state, so that it can be replaced.
func checksWith(audit func(context.Context) (*auditState, error)) Spec {
	c := &checks{table: checkTable(), audit: audit}
	var ids, sections []string
	seen := make(map[string]bool)
	for _, row := range c.table {
		ids = append(ids, row.id)
		if !seen[row.section] {
			seen[row.section] = true
			sections = append(sections, row.section)
		}
	}
	id, section := metric.Closed("check", ids...), metric.Closed("section", sections...)
	c.passed = metric.NewState("linux_security_check_passed",
		"Whether the host passes the check (1) or not (0); absent where it does not apply, is waived or could not look at everything and found nothing.", id, section)
	c.failed = metric.NewState("linux_security_check_error",
		"Whether the check could not look at everything; absent where it does not apply or is waived.", id, section)
	c.waived = metric.NewState("linux_security_check_waived",
		"Check that the configuration file waives; always 1.", id, section)
	return Spec{
		Name:    "checks",
		Help:    "Checks of the catalogue in docs/checks.md.",
		Metrics: []*metric.Metric{c.passed, c.failed, c.waived},
		Watch: []string{
			passwdFile, groupFile, shadowFile, loginDefs, sshdConfigFile, "/etc/ssh/sshd_config.d/*.conf", "/etc/sudoers", "/etc/sudoers.d/*",
			"/etc/pam.d/*", "/etc/security/*.conf", "/etc/systemd/journald.conf",
		},
		Judges:  true,
		Collect: c.collect,
	}
}

func (c *checks) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	if c.from != in.Root {
		c.from, c.homes = in.Root, in.Isolate().Rootfs
	}
	h := newCheckHost(ctx, in, c.audit)
	h.homes = c.homes
	var problems []error
	for _, row := range c.table {
		if _, waived := in.Settings.Waivers[row.id]; waived {
			out.Add(c.waived, 1, row.id, row.section)
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		findings, err := row.run(h)
		if errors.Is(err, ErrNotApplicable) || errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("check %s: %w", row.id, err))
		}
		out.Bool(c.failed, err != nil, row.id, row.section)
		if err == nil || findings > 0 {
			out.Bool(c.passed, findings == 0, row.id, row.section)
		}
	}
	return Partial(errors.Join(problems...))
}
