// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// The rule set of a fixture has its name in the file ruleset; the files
// decide about the rest.
func TestFirewall(t *testing.T) {
	t.Parallel()
	golden(t, func() Spec { return firewallWith(fixtureRules) })
}

func fixtureRules(ctx context.Context, root *hostfs.Root) (ruleset, error) {
	name, err := root.Rootfs.ReadValue(ctx, "/ruleset")
	if err != nil {
		return nil, err
	}
	input := func(drop bool, rules ...fwRule) *fwChain {
		return &fwChain{name: "INPUT", input: true, drop: drop, rules: rules}
	}
	jump := func(chain string) fwRule { return fwRule{verdict: fwVerdict{verdictJump, chain}} }
	table := func(family, name string, rules int, chains ...*fwChain) *fwTable {
		t := &fwTable{family: family, name: name, rules: rules, chains: make(map[string]*fwChain)}
		for _, c := range chains {
			t.chains[c.name] = c
		}
		return t
	}
	switch name {
	case "none":
		return nil, nil
	case "ufw":
		return ruleset{
			table("ip", "filter", 67, input(true, jump("ufw-before-input")), &fwChain{name: "ufw-before-input"}),
			table("ip6", "filter", 107, input(true, jump("ufw6-before-input")), &fwChain{name: "ufw6-before-input"}),
		}, nil
	case "firewalld":
		return ruleset{table("inet", "firewalld", 90, input(false, fwRule{verdict: fwVerdict{kind: verdictDrop}}))}, nil
	case "docker":
		return ruleset{table("ip", "nat", 6), table("ip", "filter", 9, input(false))}, nil
	case "many":
		var r ruleset
		for i := range maxFirewallTables + 3 {
			r = append(r, table("inet", fmt.Sprintf("t%02d\xff\n", i), 100-i))
		}
		return append(r, table("ip", "x", 1, input(true))), Partial(fmt.Errorf("too many rules"))
	}
	return nil, fmt.Errorf("nftables: %w: grant CAP_NET_ADMIN", unix.EPERM)
}

func TestParseUfwConf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"ENABLED=yes\n": true, "ENABLED=no\n": false, "": false, "enabled=\"YES\"\n": true, "#ENABLED=yes\n": false,
		" ENABLED=yes\n": false, "ENABLED = yes\n": false, "ENABLED='yes'\n": false, "ENABLED=yes # now\n": false,
		"ENABLED=no\nENABLED=yes  \n": true, "ENABLED=yes\nENABLED=no\n": false, "XENABLED=yes\n": false, "ENABLED=yes=no\n": true,
	} {
		if got, err := parseUfwConf(strings.NewReader(text)); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseUfwConf(f *testing.F) {
	f.Add("# ufw\nENABLED=yes\nLOGLEVEL=low\n")
	f.Fuzz(func(t *testing.T, s string) {
		if on, _ := parseUfwConf(strings.NewReader(s)); on && !strings.Contains(strings.ToLower(s), "yes") {
			t.Errorf("enabled by %q", s)
		}
	})
}

// encode builds the attributes of a netlink message.
func encode(f func(e *netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	f(e)
	b, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func nested(e *netlink.AttributeEncoder, kind uint16, f func(e *netlink.AttributeEncoder)) {
	e.Nested(kind, func(n *netlink.AttributeEncoder) error {
		n.ByteOrder = binary.BigEndian
		f(n)
		return nil
	})
}

func TestDecodeRule(t *testing.T) {
	t.Parallel()
	got, err := decodeRule(encodedRule())
	want := fwRule{conditional: true, verdict: fwVerdict{verdictJump, "next"}}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func encodedRule() []byte {
	return encode(func(e *netlink.AttributeEncoder) {
		nested(e, unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_EXPR_NAME, "cmp")
		})
		nested(e, unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_EXPR_NAME, "immediate")
			nested(e, unix.NFTA_EXPR_DATA, func(e *netlink.AttributeEncoder) {
				nested(e, unix.NFTA_IMMEDIATE_DATA, func(e *netlink.AttributeEncoder) {
					nested(e, unix.NFTA_DATA_VERDICT, func(e *netlink.AttributeEncoder) {
						jump := int32(unix.NFT_JUMP)
						e.Uint32(unix.NFTA_VERDICT_CODE, uint32(jump))
						e.String(unix.NFTA_VERDICT_CHAIN, "next")
					})
				})
			})
		})
	})
}

func FuzzDecodeNft(f *testing.F) {
	f.Add(encodedRule())
	f.Add(encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, "t")
		e.String(unix.NFTA_RULE_CHAIN, "c")
		e.Bytes(unix.NFTA_RULE_EXPRESSIONS, encodedRule())
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeRule(b)
		_, _ = decodeElements(b)
		d := nftDecoder{tables: make(map[string]*fwTable)}
		for _, decode := range []func(byte, []byte) error{d.table, d.chain, d.rule} {
			_ = decode(unix.NFPROTO_INET, b)
		}
		d.list.state().describe()
	})
}

func FuzzParseLegacy(f *testing.F) {
	f.Add(legacyTable(), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, input uint32) {
		info := legacyInfo{ValidHooks: 1 << localIn}
		info.HookEntry[localIn], info.Underflow[localIn] = input, input
		for _, p := range []legacyProtocol{legacyIPv4, legacyIPv6} {
			table, err := p.parse("filter", info, b)
			if err != nil {
				continue
			}
			if table.rules > len(b)/p.entry {
				t.Errorf("%d rules in %d bytes", table.rules, len(b))
			}
			ruleset{table}.state().describe()
		}
	})
}

// legacyTable is an IPv4 table of one policy and its end.
func legacyTable() []byte {
	b := make([]byte, 152+176)
	binary.NativeEndian.PutUint16(b[88:], 112)
	binary.NativeEndian.PutUint16(b[90:], 152)
	drop := int32(-nfDrop - 1)
	binary.NativeEndian.PutUint32(b[144:], uint32(drop))
	binary.NativeEndian.PutUint16(b[152+88:], 112)
	binary.NativeEndian.PutUint16(b[152+90:], 176)
	copy(b[152+112+2:], "ERROR")
	copy(b[152+144:], "ERROR")
	return b
}

func TestParseLegacy(t *testing.T) {
	t.Parallel()
	info := legacyInfo{ValidHooks: 1 << localIn}
	table, err := legacyIPv4.parse("filter", info, legacyTable())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := (ruleset{table}).state().describe(), "active=iptables ip=true ip6=false rules=ip filter 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	short := legacyTable()
	binary.NativeEndian.PutUint16(short[90:], 144) // a standard target without its verdict
	for name, b := range map[string][]byte{"half an entry": legacyTable()[:200], "no verdict": append(short[:144:144], short[152:]...)} {
		if _, err := legacyIPv4.parse("filter", info, b); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A page without the rules would say that there is no firewall.
func TestFirewallUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir+"/ruleset", "denied")
	in := fixtureInput(dir, Settings{})
	batch := metric.NewBatch(0)
	if err := firewallWith(fixtureRules).Collect(t.Context(), in, batch); err == nil || batch.Len() != 0 {
		t.Errorf("%d series, %v", batch.Len(), err)
	}
}
