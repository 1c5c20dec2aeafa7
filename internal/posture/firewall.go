// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Asks the kernel which rules are loaded in the network namespace of process
// 1 (firewall_nft.go, firewall_legacy.go), and reads /etc/ufw/ufw.conf
// (ufw(8)) and the links that start a firewall at boot (systemd.unit(5),
// OpenRC runlevels). No daemon is asked: firewalld shows by its table, or by
// its chains where it uses iptables.

// firewallTypes are the kernel's two kinds of tables and the two managers
// that fill them, so a firewall of ufw counts as ufw and as iptables.
var firewallTypes = []string{"firewalld", "ufw", "iptables", "nftables"}

// firewallUnits start a firewall at boot. ufw.service always runs; its
// configuration decides.
var firewallUnits = map[string][]string{
	"firewalld": {"firewalld"},
	"iptables":  {"iptables", "ip6tables", "netfilter-persistent"},
	"nftables":  {"nftables"},
}

var bootDirs = []struct{ dir, suffix string }{
	{"/etc/systemd/system/sysinit.target.wants/", ".service"},
	{"/etc/systemd/system/basic.target.wants/", ".service"},
	{"/etc/systemd/system/multi-user.target.wants/", ".service"},
	{"/etc/systemd/system/network-pre.target.wants/", ".service"},
	{"/etc/runlevels/boot/", ""},
	{"/etc/runlevels/default/", ""},
}

const (
	ufwConf = "/etc/ufw/ufw.conf"
	// maxFirewallTables is how many tables have a series of their own; the
	// rest is added up as table "other".
	maxFirewallTables = 40
)

type firewall struct {
	rules                             func(ctx context.Context, root *hostfs.Root) (ruleset, error)
	enabled, active, dropAll, counted *metric.Metric
}

func firewallCollector() Spec {
	return firewallWith((&loadedRules{pid: hostPid}).read)
}

func firewallWith(rules func(ctx context.Context, root *hostfs.Root) (ruleset, error)) Spec {
	c := &firewall{
		rules: rules,
		enabled: metric.NewLegacy("linux_security_firewall_enabled",
			"Whether the firewall is loaded or set up to be at boot; none is 1 when no firewall is.",
			metric.Closed("firewall_type", append(slices.Clone(firewallTypes), "none")...),
			metric.Closed("is_running", "true", "false")),
		active: metric.New(metric.Gauge, "linux_security_firewall_active",
			"Whether rules that refuse packets to the host are loaded: iptables and nftables by kernel table, ufw and firewalld by who made them; tables of container networking do not count.",
			metric.Closed("type", firewallTypes...)),
		dropAll: metric.New(metric.Gauge, "linux_security_firewall_input_default_drop",
			"Whether a packet to the host that no rule matches is refused, by a policy or a last rule.",
			metric.Closed("family", "ip", "ip6")),
		counted: metric.NewState("linux_security_firewall_rules",
			"Number of rules loaded in the table, of nftables and iptables alike.",
			metric.Open("family", "ip, ip6, inet, arp, bridge, netdev or other."),
			metric.Open("table", "Name of the table; other for those above the limit of tables.")),
	}
	watch := []string{ufwConf}
	for _, d := range bootDirs {
		if d.suffix != "" {
			watch = append(watch, d.dir+"*")
		}
	}
	return Spec{
		Name:    "firewall",
		Help:    "Packet filter rules that are really loaded, whoever loaded them.",
		Metrics: []*metric.Metric{c.enabled, c.active, c.dropAll, c.counted},
		Watch:   watch,
		Collect: c.collect,
	}
}

func (c *firewall) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	state, err := readFirewall(ctx, in.Root, c.rules)
	if state == nil {
		return err
	}
	none := true
	for _, kind := range firewallTypes {
		running := state.active[kind]
		enabled := running || state.atBoot[kind]
		none = none && !enabled
		out.Bool(c.active, running, kind)
		out.Bool(c.enabled, enabled, kind, boolLabel(running))
	}
	out.Bool(c.enabled, none, "none", "false")
	out.Bool(c.dropAll, state.dropsIPv4, "ip")
	out.Bool(c.dropAll, state.dropsIPv6, "ip6")
	for _, n := range state.counts {
		out.Add(c.counted, float64(n.rules), n.family, n.table)
	}
	return Partial(err)
}

func boolLabel(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// firewallState is what a host's packet filter does. active and atBoot have
// the keys of firewallTypes.
type firewallState struct {
	active, atBoot       map[string]bool
	dropsIPv4, dropsIPv6 bool
	counts               []ruleCount
}

type ruleCount struct {
	family, table string
	rules         int
}

// readFirewall returns nil if the loaded rules cannot be had: without them
// nothing is certain. With a state, the error says what is missing in it.
func readFirewall(ctx context.Context, root *hostfs.Root, rules func(context.Context, *hostfs.Root) (ruleset, error)) (*firewallState, error) {
	tables, err := rules(ctx, root)
	if partial := (*partialError)(nil); err != nil && !errors.As(err, &partial) {
		return nil, err
	}
	state := tables.state()
	problem := state.readBoot(ctx, root.Rootfs)
	return state, errors.Join(err, problem)
}

func (r ruleset) state() *firewallState {
	s := &firewallState{active: make(map[string]bool), atBoot: make(map[string]bool)}
	for _, t := range r {
		if isForeignTable(t.name) {
			continue
		}
		for _, base := range t.inputs() {
			if t.refuses(base) {
				for _, kind := range t.kinds(base) {
					s.active[kind] = true
				}
			}
			drops := t.dropsRest(base)
			s.dropsIPv4 = s.dropsIPv4 || drops && t.family != "ip6"
			s.dropsIPv6 = s.dropsIPv6 || drops && t.family != "ip"
		}
	}
	s.counts = r.counts()
	return s
}

// kinds are the types that an input chain belongs to.
func (t *fwTable) kinds(base *fwChain) []string {
	kinds := []string{"nftables"}
	if t.isIptables() {
		kinds[0] = "iptables"
	}
	if t.name == "firewalld" {
		return append(kinds, "firewalld")
	}
	for _, c := range t.reachable(base) {
		switch {
		case kinds[0] != "iptables":
		case strings.HasPrefix(c.name, "ufw-"), strings.HasPrefix(c.name, "ufw6-"):
			kinds = append(kinds, "ufw")
		case c.name == "INPUT_ZONES":
			kinds = append(kinds, "firewalld")
		}
	}
	return kinds
}

// counts adds up the rules by family and table, the largest first.
func (r ruleset) counts() []ruleCount {
	var all []ruleCount
	for _, t := range r {
		i := slices.IndexFunc(all, func(n ruleCount) bool { return n.family == t.family && n.table == t.name })
		if i < 0 {
			all = append(all, ruleCount{t.family, t.name, t.rules})
			continue
		}
		all[i].rules += t.rules
	}
	slices.SortStableFunc(all, func(a, b ruleCount) int { return b.rules - a.rules })
	if len(all) <= maxFirewallTables {
		return all
	}
	other := ruleCount{family: "other", table: "other"}
	for _, n := range all[maxFirewallTables:] {
		other.rules += n.rules
	}
	return append(all[:maxFirewallTables], other)
}

// readBoot finds out what starts at boot.
func (s *firewallState) readBoot(ctx context.Context, root *hostfs.Tree) error {
	var problems []error
	b, err := root.ReadLimit(ctx, ufwConf, hostfs.ValueLimit)
	if err == nil {
		s.atBoot["ufw"], err = parseUfwConf(bytes.NewReader(b))
	}
	if !errors.Is(err, hostfs.ErrNotExist) {
		problems = append(problems, err)
	}
	for kind, units := range firewallUnits {
		for _, unit := range units {
			for _, d := range bootDirs {
				_, err := root.Lstat(ctx, d.dir+unit+d.suffix)
				if err == nil {
					s.atBoot[kind] = true
				} else if !errors.Is(err, hostfs.ErrNotExist) {
					problems = append(problems, err)
				}
			}
		}
	}
	return errors.Join(problems...)
}

// parseUfwConf reads ENABLED of ufw.conf as ufw(8) does: NAME=value without
// blanks, any case, value in double quotes or none, the last one wins.
func parseUfwConf(r io.Reader) (enabled bool, err error) {
	lines := configLines(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok || !strings.EqualFold(key, "enabled") || !startsWord(strings.TrimPrefix(value, `"`)) {
			continue
		}
		value, _, _ = strings.Cut(strings.TrimSpace(value), "=")
		enabled = strings.EqualFold(strings.Trim(value, `"'`), "yes")
	}
	return enabled, lines.Err()
}

func startsWord(s string) bool {
	return s != "" && (isShellName(s[:1]) || s[0] >= '0' && s[0] <= '9')
}
