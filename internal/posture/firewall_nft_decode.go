// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Verdicts of include/uapi/linux/netfilter.h.
const (
	nfDrop   = 0
	nfAccept = 1
)

// nftDecoder builds the tables from the answers of three dumps, in this
// order: tables, chains, rules.
type nftDecoder struct {
	list   ruleset
	tables map[string]*fwTable
	stored int
	// wanted are the verdict maps that rules look up.
	wanted []verdictMap
	// limit says what was left out.
	limit error
}

type verdictMap struct {
	table *fwTable
	name  string
}

// nftFamilies are the families by number (NFPROTO_*).
var nftFamilies = []struct {
	number byte
	name   string
}{
	{unix.NFPROTO_INET, "inet"}, {unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_ARP, "arp"},
	{unix.NFPROTO_NETDEV, "netdev"}, {unix.NFPROTO_BRIDGE, "bridge"}, {unix.NFPROTO_IPV6, "ip6"},
}

func familyName(number byte) string {
	for _, f := range nftFamilies {
		if f.number == number {
			return f.name
		}
	}
	return "other"
}

func familyNumber(name string) byte {
	for _, f := range nftFamilies {
		if f.name == name {
			return f.number
		}
	}
	return unix.NFPROTO_UNSPEC
}

func (d *nftDecoder) table(family byte, b []byte) error {
	t := &fwTable{family: familyName(family), chains: make(map[string]*fwChain), maps: make(map[string][]fwVerdict)}
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_TABLE_NAME:
			t.name = a.String()
		case unix.NFTA_TABLE_FLAGS:
			t.dormant = a.Uint32()&unix.NFT_TABLE_F_DORMANT != 0
		}
	})
	d.list = append(d.list, t)
	d.tables[t.family+" "+t.name] = t
	return err
}

func (d *nftDecoder) chain(family byte, b []byte) error {
	c := &fwChain{}
	var table, kind string
	hook := int64(-1)
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = a.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			kind = a.String()
		case unix.NFTA_CHAIN_POLICY:
			c.drop = a.Uint32() == nfDrop
		case unix.NFTA_CHAIN_HOOK:
			a.Do(func(b []byte) error {
				return attributes(b, func(a *netlink.AttributeDecoder) {
					if a.Type() == unix.NFTA_HOOK_HOOKNUM {
						hook = int64(a.Uint32())
					}
				})
			})
		}
	})
	t := d.tables[familyName(family)+" "+table]
	if t == nil || isForeignTable(table) || isForeignChain(c.name) {
		return err
	}
	switch t.family {
	case "ip", "ip6", "inet":
		c.input = kind == "filter" && hook == unix.NF_INET_LOCAL_IN
	}
	t.chains[c.name] = c
	return err
}

func (d *nftDecoder) rule(family byte, b []byte) error {
	var table, chain string
	var expressions []byte
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			table = a.String()
		case unix.NFTA_RULE_CHAIN:
			chain = a.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = a.Bytes()
		}
	})
	t := d.tables[familyName(family)+" "+table]
	if err != nil || t == nil {
		return err
	}
	t.rules++
	c := t.chains[chain]
	if c == nil {
		return nil
	}
	if d.stored >= maxStoredRules {
		d.limit = fmt.Errorf("nftables: more than %d rules: those beyond are counted, what they decide is not seen", maxStoredRules)
		return nil
	}
	r, err := decodeRule(expressions)
	if err != nil {
		return err
	}
	d.stored++
	c.rules = append(c.rules, r)
	m := verdictMap{t, r.lookup}
	if r.lookup == "" || slices.Contains(d.wanted, m) {
		return nil
	}
	if len(d.wanted) >= maxVerdictMaps {
		d.limit = fmt.Errorf("nftables: more than %d verdict maps: what those beyond decide is not seen", maxVerdictMaps)
		return nil
	}
	d.wanted = append(d.wanted, m)
	return nil
}

// decodeRule reads the list of expressions of a rule.
func decodeRule(b []byte) (fwRule, error) {
	var r fwRule
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_LIST_ELEM {
			return
		}
		var name string
		var data []byte
		a.Do(func(b []byte) error {
			return attributes(b, func(a *netlink.AttributeDecoder) {
				switch a.Type() {
				case unix.NFTA_EXPR_NAME:
					name = a.String()
				case unix.NFTA_EXPR_DATA:
					data = a.Bytes()
				}
			})
		})
		a.Do(func([]byte) error { return r.add(name, data) })
	})
	return r, err
}

// add applies one expression. One that is not known here may stop the rule,
// so it counts as a condition.
func (r *fwRule) add(name string, data []byte) error {
	switch name {
	case "counter", "log", "last", "notrack":
		return nil
	case "reject":
		r.verdict.kind = verdictDrop
		return nil
	case "immediate":
		v, err := decodeImmediate(data)
		if v.kind != verdictNone {
			r.verdict = v
		}
		return err
	case "lookup":
		return r.addLookup(data)
	case "match", "target":
		return r.addXtables(name, data)
	}
	r.conditional = true
	return nil
}

func (r *fwRule) addLookup(data []byte) error {
	var set string
	register := int64(-1)
	err := attributes(data, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_LOOKUP_SET:
			set = a.String()
		case unix.NFTA_LOOKUP_DREG:
			register = int64(a.Uint32())
		}
	})
	r.conditional = true
	if register == unix.NFT_REG_VERDICT {
		r.lookup = set
	}
	return err
}

// addXtables is a match or target of iptables that nftables has no
// expression for. The first attribute of both is the name.
func (r *fwRule) addXtables(kind string, data []byte) error {
	var name string
	err := attributes(data, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_MATCH_NAME {
			name = a.String()
		}
	})
	if kind == "target" {
		r.verdict.kind = xtablesVerdict(name, r.verdict.kind)
	} else if name != "comment" {
		r.conditional = true
	}
	return err
}

// xtablesVerdict is what a target extension of iptables decides; most, such
// as LOG and MARK, decide nothing.
func xtablesVerdict(target string, before verdictKind) verdictKind {
	switch target {
	case "REJECT", "TARPIT":
		return verdictDrop
	}
	return before
}

func decodeImmediate(b []byte) (fwVerdict, error) {
	var v fwVerdict
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_IMMEDIATE_DATA {
			a.Do(func(b []byte) (err error) { v, err = decodeVerdict(b); return err })
		}
	})
	return v, err
}

// decodeVerdict reads a value, which may be a verdict.
func decodeVerdict(b []byte) (fwVerdict, error) {
	var v fwVerdict
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_DATA_VERDICT {
			return
		}
		a.Do(func(b []byte) error {
			return attributes(b, func(a *netlink.AttributeDecoder) {
				switch a.Type() {
				case unix.NFTA_VERDICT_CODE:
					v.kind = nftVerdict(int32(a.Uint32()))
				case unix.NFTA_VERDICT_CHAIN:
					v.chain = a.String()
				}
			})
		})
	})
	return v, err
}

func nftVerdict(code int32) verdictKind {
	switch code {
	case nfDrop:
		return verdictDrop
	case nfAccept:
		return verdictAccept
	case unix.NFT_RETURN:
		return verdictReturn
	case unix.NFT_JUMP:
		return verdictJump
	case unix.NFT_GOTO:
		return verdictGoto
	}
	return verdictNone
}

// decodeElements reads the verdicts of the elements of a map.
func decodeElements(b []byte) ([]fwVerdict, error) {
	var out []fwVerdict
	element := func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_SET_ELEM_DATA {
			a.Do(func(b []byte) error {
				v, err := decodeVerdict(b)
				if !slices.Contains(out, v) {
					out = append(out, v)
				}
				return err
			})
		}
	}
	err := attributes(b, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		a.Do(func(b []byte) error {
			return attributes(b, func(a *netlink.AttributeDecoder) {
				a.Do(func(b []byte) error { return attributes(b, element) })
			})
		})
	})
	return out, err
}
