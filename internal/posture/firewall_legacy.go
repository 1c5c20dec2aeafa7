// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

// Reads /proc/PID/net/ip_tables_names and ip6_tables_names, and asks for the
// tables named there with getsockopt(IPT_SO_GET_INFO) and
// (IPT_SO_GET_ENTRIES) of include/uapi/linux/netfilter_ipv4/ip_tables.h and
// its IPv6 twin. Asking for any other name would load a module. Needs
// CAP_NET_ADMIN.

// legacyProtocol is what differs between iptables and ip6tables.
type legacyProtocol struct {
	family, names string
	domain, level int
	// header is the length of struct ipt_ip or ip6t_ip6, entry that of struct
	// ipt_entry or ip6t_entry, the header included.
	header, entry int
	// flags is the offset of the flags in the header, gotoFlag the one that
	// is no condition.
	flags    int
	gotoFlag byte
}

var (
	legacyIPv4 = legacyProtocol{
		family: "ip", names: "ip_tables_names", domain: unix.AF_INET, level: unix.SOL_IP,
		header: 84, entry: 112, flags: 82, gotoFlag: 0x02,
	}
	legacyIPv6 = legacyProtocol{
		family: "ip6", names: "ip6_tables_names", domain: unix.AF_INET6, level: unix.SOL_IPV6,
		header: 136, entry: 168, flags: 131, gotoFlag: 0x04,
	}
)

const (
	legacyGetInfo     = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	legacyGetEntries  = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES
	xtTableNameLen    = 32
	maxLegacyTables   = 16
	maxLegacyBytes    = 32 << 20
	legacyAttempts    = 4
	legacyEntriesHead = xtTableNameLen + 8 // struct ipt_get_entries before the entries, aligned
)

// legacyInfo is struct ipt_getinfo: the offsets of the first rule and of the
// policy of each hook, and the number and bytes of all entries.
type legacyInfo struct {
	Name       [xtTableNameLen]byte
	ValidHooks uint32
	HookEntry  [5]uint32
	Underflow  [5]uint32
	NumEntries uint32
	Size       uint32
}

// readLegacy returns the tables of legacy iptables in the network namespace
// of the calling thread, which is that of the process pid.
func readLegacy(ctx context.Context, root *hostfs.Root, pid int) (ruleset, error) {
	var tables ruleset
	var problems []error
	for _, p := range []legacyProtocol{legacyIPv4, legacyIPv6} {
		names, err := root.Procfs.ReadValue(ctx, "/"+strconv.Itoa(pid)+"/net/"+p.names)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue // the module is not loaded
		}
		problems = append(problems, err)
		list := strings.Fields(names)
		for _, name := range list[:min(len(list), maxLegacyTables)] {
			t, err := p.table(name)
			if err != nil {
				problems = append(problems, fmt.Errorf("iptables table %s %s: %w", p.family, name, err))
				continue
			}
			tables = append(tables, t)
		}
	}
	return tables, errors.Join(problems...)
}

func (p legacyProtocol) table(name string) (*fwTable, error) {
	if len(name) >= xtTableNameLen {
		return nil, fmt.Errorf("name of %d bytes", len(name))
	}
	fd, err := unix.Socket(p.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	for range legacyAttempts {
		var info legacyInfo
		copy(info.Name[:], name)
		err := getsockopt(fd, p.level, legacyGetInfo, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
		if err != nil {
			return nil, err
		}
		if info.Size > maxLegacyBytes {
			return nil, fmt.Errorf("%w of %d bytes: %d bytes", hostfs.ErrTooLarge, maxLegacyBytes, info.Size)
		}
		buf := make([]byte, legacyEntriesHead+int(info.Size))
		copy(buf, name)
		binary.NativeEndian.PutUint32(buf[xtTableNameLen:], info.Size)
		err = getsockopt(fd, p.level, legacyGetEntries, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINVAL) {
			continue // another size by now
		}
		if err != nil {
			return nil, err
		}
		return p.parse(name, info, buf[legacyEntriesHead:])
	}
	return nil, fmt.Errorf("the rules changed during each of %d attempts to read them", legacyAttempts)
}

func getsockopt(fd, level, option int, buf []byte) error {
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&n)), 0)
	runtime.KeepAlive(buf)
	switch errno {
	case 0:
		return nil
	case unix.EPERM:
		return fmt.Errorf("%w: grant CAP_NET_ADMIN", errno)
	}
	return errno
}

// localIn is NF_INET_LOCAL_IN, the index of the input hook.
const localIn = unix.NF_INET_LOCAL_IN

var (
	errLegacyLayout = errors.New("entries in an unknown layout")
	hookChains      = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
)

// legacyEntry is one entry: a rule, the policy of a hook, the head of a
// chain (whose target names it) or the return at the end of a chain.
type legacyEntry struct {
	offset, next uint32
	conditional  bool
	jumps        bool // IPT_F_GOTO is not set
	target       string
	// verdict is that of the standard target: negative, or the offset of the
	// rule to go on with.
	verdict int32
	// text is the name in an ERROR target.
	text string
}

// parse turns the entries of a table into chains.
func (p legacyProtocol) parse(name string, info legacyInfo, b []byte) (*fwTable, error) {
	entries, err := p.entries(b)
	if err != nil {
		return nil, err
	}
	t := &fwTable{family: p.family, name: name, legacy: true, chains: make(map[string]*fwChain)}
	starts, policies := make(map[uint32]string), make(map[uint32]bool)
	for _, e := range entries {
		if e.target == "ERROR" {
			starts[e.next] = e.text
		}
	}
	for hook, chain := range hookChains {
		if info.ValidHooks&(1<<hook) != 0 {
			starts[info.HookEntry[hook]] = chain
			policies[info.Underflow[hook]] = true
		}
	}
	var c *fwChain
	for i, e := range entries {
		if chain, ok := starts[e.offset]; ok {
			c = &fwChain{name: chain, input: name != "nat" && info.ValidHooks&(1<<localIn) != 0 && e.offset == info.HookEntry[localIn]}
			t.chains[chain] = c
		}
		switch {
		case e.target == "ERROR" || c == nil:
			c = nil
		case policies[e.offset]:
			c.drop = e.verdict == -nfDrop-1
			c = nil
		case i+1 < len(entries) && entries[i+1].target == "ERROR":
			c = nil // the return that ends every chain of the user
		default:
			t.rules++
			c.rules = append(c.rules, e.rule(starts))
		}
	}
	for chain := range t.chains {
		if isForeignChain(chain) {
			delete(t.chains, chain)
		}
	}
	return t, nil
}

func (e legacyEntry) rule(starts map[uint32]string) fwRule {
	r := fwRule{conditional: e.conditional}
	if e.target != "" {
		r.verdict.kind = xtablesVerdict(e.target, verdictNone)
		return r
	}
	switch {
	case e.verdict == -nfDrop-1:
		r.verdict.kind = verdictDrop
	case e.verdict == -nfAccept-1:
		r.verdict.kind = verdictAccept
	case e.verdict == xtReturn:
		r.verdict.kind = verdictReturn
	case uint32(e.verdict) == e.next:
		// No target at all: on to the next rule.
	case e.verdict >= 0:
		r.verdict = fwVerdict{verdictGoto, starts[uint32(e.verdict)]}
		if e.jumps {
			r.verdict.kind = verdictJump
		}
	}
	return r
}

// xtReturn is XT_RETURN, -NF_REPEAT-1.
const xtReturn = -5

// entries splits the bytes. Every offset is checked: the layout of a 32-bit
// kernel differs.
func (p legacyProtocol) entries(b []byte) ([]legacyEntry, error) {
	const targetHead = 32 // struct xt_entry_target
	var out []legacyEntry
	for offset := 0; offset < len(b); {
		rest := b[offset:]
		if len(rest) < p.entry {
			return nil, errLegacyLayout
		}
		target := int(binary.NativeEndian.Uint16(rest[p.header+4:]))
		next := int(binary.NativeEndian.Uint16(rest[p.header+6:]))
		if target < p.entry || next < target+targetHead || next > len(rest) {
			return nil, errLegacyLayout
		}
		e := legacyEntry{
			offset: uint32(offset), next: uint32(offset + next),
			conditional: p.conditional(rest[:p.header]) || hasMatch(rest[p.entry:target]),
			jumps:       rest[p.flags]&p.gotoFlag == 0,
			target:      cString(rest[target+2 : target+31]),
		}
		data := rest[target+targetHead : next]
		switch {
		case e.target == "" && len(data) >= 4:
			e.verdict = int32(binary.NativeEndian.Uint32(data))
		case e.target == "":
			return nil, errLegacyLayout
		case e.target == "ERROR":
			e.text = cString(data)
		}
		out = append(out, e)
		offset += next
	}
	return out, nil
}

// conditional is whether the header asks for anything: an address, an
// interface, a protocol. Only the goto flag asks for nothing.
func (p legacyProtocol) conditional(header []byte) bool {
	for i, c := range header {
		if i == p.flags {
			c &^= p.gotoFlag
		}
		if c != 0 {
			return true
		}
	}
	return false
}

// hasMatch is whether there is a match extension that may fail.
func hasMatch(b []byte) bool {
	for len(b) >= 32 { // struct xt_entry_match
		size := int(binary.NativeEndian.Uint16(b))
		if cString(b[2:31]) != "comment" || size < 32 || size > len(b) {
			return true
		}
		b = b[size:]
	}
	return false
}

func cString(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
