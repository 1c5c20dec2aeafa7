// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"slices"
	"strings"
)

// ruleset is the packet filter of one network namespace: the tables of
// nftables, which iptables-nft uses too, and those of legacy iptables.
type ruleset []*fwTable

// fwTable is one table. Chains that belong to container or virtualisation
// networking are left out of chains, but counted in rules.
type fwTable struct {
	// family is ip, ip6, inet, arp, bridge or netdev.
	family, name string
	legacy       bool
	// dormant tables are loaded and see no packet.
	dormant bool
	chains  map[string]*fwChain
	// maps are the verdicts of each verdict map that a rule looks up.
	maps  map[string][]fwVerdict
	rules int
}

// fwChain is one chain with its rules in order.
type fwChain struct {
	name string
	// input is a base chain of type filter on the input hook.
	input bool
	// drop is the policy of a base chain.
	drop  bool
	rules []fwRule
}

// fwRule is what a rule may decide. Without conditions it decides for every
// packet that gets to it.
type fwRule struct {
	conditional bool
	verdict     fwVerdict
	// lookup is the verdict map that decides, if any.
	lookup string
}

// fwVerdict is one decision; chain is where jump and goto lead.
type fwVerdict struct {
	kind  verdictKind
	chain string
}

type verdictKind uint8

// What becomes of a packet. A reject is a drop here: both refuse it.
const (
	verdictNone verdictKind = iota
	verdictAccept
	verdictDrop
	verdictReturn
	verdictJump
	verdictGoto
)

// foreignTables and foreignChains are made by software that connects
// containers and virtual machines: not a firewall of the host.
var (
	foreignTables = []string{"kube-proxy", "docker-bridges", "libvirt_network", "netavark"}
	foreignChains = []string{"KUBE-", "DOCKER", "LIBVIRT_", "CNI-", "NETAVARK"}
)

func isForeignTable(name string) bool { return slices.Contains(foreignTables, name) }

func isForeignChain(name string) bool {
	return slices.ContainsFunc(foreignChains, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// isIptables tells a table of iptables, legacy or nft, by the names that
// iptables(8) gives to tables and base chains.
func (t *fwTable) isIptables() bool {
	if t.legacy {
		return true
	}
	if t.family != "ip" && t.family != "ip6" || !slices.Contains(iptablesTables, t.name) {
		return false
	}
	for _, c := range t.chains {
		if c.input && c.name != "INPUT" {
			return false
		}
	}
	return true
}

var iptablesTables = []string{"filter", "nat", "mangle", "raw", "security"}

// inputs are the base chains that see packets for the host.
func (t *fwTable) inputs() []*fwChain {
	if t.dormant {
		return nil
	}
	var out []*fwChain
	for _, name := range sortedKeys(t.chains) {
		if c := t.chains[name]; c.input {
			out = append(out, c)
		}
	}
	return out
}

// reachable are the chain and those that its rules lead to.
func (t *fwTable) reachable(from *fwChain) []*fwChain {
	seen := map[string]bool{from.name: true}
	list := []*fwChain{from}
	for i := 0; i < len(list); i++ {
		for _, r := range list[i].rules {
			for _, v := range t.verdicts(r) {
				if next := t.chains[v.chain]; next != nil && !seen[v.chain] {
					seen[v.chain] = true
					list = append(list, next)
				}
			}
		}
	}
	return list
}

func (t *fwTable) verdicts(r fwRule) []fwVerdict {
	if r.lookup != "" {
		return t.maps[r.lookup]
	}
	return []fwVerdict{r.verdict}
}

// refuses is whether some packet to the host is dropped: by the policy or by
// any rule that the base chain leads to.
func (t *fwTable) refuses(base *fwChain) bool {
	return base.drop || slices.ContainsFunc(t.reachable(base), func(c *fwChain) bool {
		return slices.ContainsFunc(c.rules, func(r fwRule) bool {
			return slices.ContainsFunc(t.verdicts(r), func(v fwVerdict) bool { return v.kind == verdictDrop })
		})
	})
}

// dropsRest is whether a packet that no condition matches is dropped: by a
// rule without conditions, which many rule sets end in, or by the policy.
func (t *fwTable) dropsRest(base *fwChain) bool {
	w := walk{t, make(map[step]verdictKind)}
	switch w.rest(step{base, false}) {
	case verdictAccept:
		return false
	case verdictDrop:
		return true
	}
	return base.drop
}

// walk follows the rules without conditions. Each chain is walked once, so
// that a loop, which the kernel refuses, would end here too.
type walk struct {
	table *fwTable
	known map[step]verdictKind
}

// step is a chain; called, if a rule jumps to it and its end leads back.
type step struct {
	chain  *fwChain
	called bool
}

// rest is what becomes of a packet that matches no condition in the chain;
// verdictReturn is its end.
func (w walk) rest(s step) verdictKind {
	if s.chain == nil {
		return verdictReturn
	}
	if v, ok := w.known[s]; ok {
		return v
	}
	w.known[s] = verdictReturn
	v := w.decide(s)
	w.known[s] = v
	return v
}

func (w walk) decide(s step) verdictKind {
	for _, r := range s.chain.rules {
		if r.conditional {
			if s.called && w.mayReturn(r) {
				// What follows is itself on a condition: ufw drops what is
				// neither local nor multicast in this way.
				return verdictReturn
			}
			continue
		}
		next := w.table.chains[r.verdict.chain]
		switch r.verdict.kind {
		case verdictAccept, verdictDrop, verdictReturn:
			return r.verdict.kind
		case verdictGoto:
			return w.rest(step{next, s.called})
		case verdictJump:
			if v := w.rest(step{next, true}); v != verdictReturn {
				return v
			}
		}
	}
	return verdictReturn
}

func (w walk) mayReturn(r fwRule) bool {
	return slices.ContainsFunc(w.table.verdicts(r), func(v fwVerdict) bool {
		return v.kind == verdictReturn || v.kind == verdictGoto
	})
}
