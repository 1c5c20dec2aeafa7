// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Asks the kernel over NETLINK_AUDIT (audit_netlink.go), and reads the rules
// that augenrules(8) compiled in /etc/audit/audit.rules. Where the kernel
// gives no answer, the file and /proc/PID/comm are what is left.

const auditRules = "/etc/audit/audit.rules"

type audit struct {
	query func(ctx context.Context) (*auditState, error)

	running, count                                   *metric.Metric
	enabled, lost, backlog, limit, rules, configured *metric.Metric
}

func auditCollector() Spec { return auditWith(queryAudit) }

func auditWith(query func(ctx context.Context) (*auditState, error)) Spec {
	gauge := func(name, help string) *metric.Metric {
		return metric.NewState("linux_security_audit_"+name, help)
	}
	c := &audit{
		query: query,
		running: metric.NewLegacy("linux_security_auditd_running",
			"Whether an audit daemon is registered with the kernel."),
		count: metric.NewLegacy("linux_security_auditd_rules_count",
			"Number of audit rules that the kernel has loaded, or that the file has if the kernel may not be asked."),
		enabled: gauge("enabled", "State of auditing: 0 off, 1 on, 2 on and locked until the next boot."),
		lost: metric.New(metric.Counter, "linux_security_audit_lost_total",
			"Audit records that the kernel could not deliver."),
		backlog:    gauge("backlog", "Audit records that wait for the daemon."),
		limit:      gauge("backlog_limit", "Audit records that may wait before more are lost; 0 is no limit."),
		rules:      gauge("rules", "Number of audit rules that the kernel has loaded."),
		configured: gauge("rules_configured", "Number of rules in /etc/audit/audit.rules; the kernel should have as many."),
	}
	c.lost.Sparse = true
	return Spec{
		Name:    "audit",
		Help:    "State and rules of the kernel's audit system.",
		Metrics: []*metric.Metric{c.running, c.count, c.enabled, c.lost, c.backlog, c.limit, c.rules, c.configured},
		Watch:   []string{auditRules},
		Collect: c.collect,
	}
}

func (c *audit) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	inFile, err := readAuditRules(ctx, in.Rootfs)
	known := err == nil
	if errors.Is(err, hostfs.ErrNotExist) {
		err = nil
	}
	problems := []error{err}
	if known {
		out.Add(c.configured, float64(inFile))
	}
	state, err := c.query(ctx)
	switch {
	case errors.Is(auditUnsupported(err), ErrNotApplicable):
		return auditUnsupported(err)
	case err != nil:
		problems = append(problems, err, c.fallback(ctx, in, out))
		if known {
			out.Add(c.count, float64(inFile))
		}
	default:
		alive, err := state.daemonAlive(ctx, in.Root)
		problems = append(problems, err)
		out.Bool(c.running, alive)
		c.add(out, state)
	}
	return Partial(errors.Join(problems...))
}

// auditUnsupported makes of the error of a kernel without audit support that
// there is nothing to look at.
func auditUnsupported(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: the kernel has no audit support", ErrNotApplicable)
	}
	return err
}

func (c *audit) add(out *metric.Batch, s *auditState) {
	out.Add(c.count, float64(s.rules))
	out.Add(c.enabled, float64(s.Enabled))
	out.Add(c.lost, float64(s.Lost))
	out.Add(c.backlog, float64(s.Backlog))
	out.Add(c.limit, float64(s.BacklogLimit))
	out.Add(c.rules, float64(s.rules))
}

// daemonAlive is whether the registered daemon still exists: the kernel
// forgets one that was killed only when it has a record to deliver.
func (s *auditState) daemonAlive(ctx context.Context, root *hostfs.Root) (bool, error) {
	if s.Pid == 0 {
		return false, nil
	}
	_, err := root.Procfs.Stat(ctx, fmt.Sprintf("/%d", s.Pid))
	if errors.Is(err, hostfs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// fallback looks for the process.
func (c *audit) fallback(ctx context.Context, in *Input, out *metric.Batch) error {
	pids, err := in.Pids(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, pid := range pids {
		name, err := in.Procfs.ReadValue(ctx, fmt.Sprintf("/%d/comm", pid))
		found = found || err == nil && name == "auditd"
	}
	out.Bool(c.running, found)
	return nil
}

// readAuditRules counts the rules in the file that auditctl(8) loads.
func readAuditRules(ctx context.Context, root *hostfs.Tree) (int, error) {
	b, err := root.ReadFile(ctx, auditRules)
	if err != nil {
		return 0, err
	}
	return parseAuditRules(bytes.NewReader(b))
}

// parseAuditRules counts the lines of audit.rules(7) that make a rule. The
// others set options or delete; a -D before deletes nothing that is counted.
func parseAuditRules(r io.Reader) (int, error) {
	n := 0
	lines := configLines(r)
	for lines.Scan() {
		first, _, _ := strings.Cut(strings.TrimLeft(lines.Text(), " \t"), " ")
		switch first {
		case "-a", "-A", "-w", "-S":
			n++
		}
	}
	return n, lines.Err()
}
