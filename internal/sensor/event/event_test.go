// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
)

// record lays an event out as the kernel does: with none, one or two texts.
func record(e abi.Event, texts ...string) []byte {
	for i, text := range texts {
		if i < len(e.Lengths) && e.Lengths[i] == 0 {
			e.Lengths[i] = uint16(len(text))
		}
	}
	out := append([]byte{}, unsafe.Slice((*byte)(unsafe.Pointer(&e)), HeaderSize)...)
	for _, text := range texts {
		out = append(out, text+strings.Repeat("\xaa", max(0, abi.TextLen-len(text)))...)
	}
	return out
}

func header(kind Kind, probe int) abi.Event {
	return abi.Event{
		TimeNs: 5, CgroupId: 6, LegacyCgroupId: 14, Tgid: 7, Tid: 8, Parent: 9, Uid: 10, Euid: 11, Loginuid: 12, Weight: 13,
		Kind: uint8(kind), Probe: uint8(probe), Class: 1, Comm: [16]uint8{'s', 'h', 0, 'x'},
	}
}

func with(e abi.Event, change func(*abi.Event)) abi.Event {
	change(&e)
	return e
}

func TestDecode(t *testing.T) {
	t.Parallel()
	peer := [16]uint8{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 1}
	for _, c := range []struct {
		name   string
		record []byte
		want   Event // over what all have in common
	}{
		{"exec", record(header(Exec, 0), "bash\x00bin\x00usr\x00"), Event{Executable: []byte("/usr/bin/bash")}},
		{
			"exec with arguments", record(header(Exec, 0), "a\x00", "ls\x00-l\x00\xff\n\x00"),
			Event{Executable: []byte("/a"), Arguments: []byte("ls\x00-l\x00\xff\n")},
		},
		{
			"suspicious exec", record(with(header(Exec, 0), func(e *abi.Event) { e.Class = 3 }), "memfd:x\x00"),
			Event{Class: 3, Severity: Critical, Executable: []byte("/memfd:x")},
		},
		{"exit", record(header(Exit, 0)), Event{}},
		{
			"connect", record(with(header(Connect, 1), func(e *abi.Event) { e.What, e.How, e.Port, e.Address = 1, 1, 443, peer })),
			Event{Direction: 1, Transport: 1, Peer: netip.MustParseAddrPort("192.0.2.1:443")},
		},
		{
			"connect to us", record(with(header(Connect, 1), func(e *abi.Event) { e.Class, e.Address, e.Tgid = NoClass, [16]byte{15: 1}, 0 })),
			Event{Class: NoClass, Peer: netip.MustParseAddrPort("[::1]:0")},
		},
		{
			"connect error", record(with(header(ConnectError, 1), func(e *abi.Event) { e.What, e.Address = 2, peer })),
			Event{ConnectError: 2, Severity: Warning, Peer: netip.MustParseAddrPort("192.0.2.1:0")},
		},
		{
			"critical write", record(with(header(File, 2), func(e *abi.Event) { e.How = 1 }), "vi\x00bin\x00", "shadow\x00etc\x00"),
			Event{Operation: 1, Severity: Critical, Executable: []byte("/bin/vi"), Name: []byte("/etc/shadow")},
		},
		{
			"read", record(with(header(File, 2), func(e *abi.Event) { e.What = 2 }), "", "\xff\n\x00"),
			Event{Severity: Info, Name: []byte("/\xff\n")},
		},
		{
			"cut", record(with(header(File, 2), func(e *abi.Event) { e.What, e.Truncated = 1, 2 }), "vi\x00bin\x00", "b\x00a\x00"),
			Event{Severity: Warning, Truncated: true, Executable: []byte("/bin/vi"), Name: []byte("a/b")},
		},
		{
			"setuid", record(with(header(Privilege, 3), func(e *abi.Event) { e.OldId, e.NewId = 1, 2 }), "a\x00"),
			Event{OldID: 1, NewID: 2, Executable: []byte("/a")},
		},
		{
			"setuid refused", record(with(header(Privilege, 3), func(e *abi.Event) { e.What, e.How = 4, 1 }), ""),
			Event{Call: 4, Result: 1, Severity: Warning},
		},
		{
			"gain", record(with(header(Gain, 3), func(e *abi.Event) { e.How, e.OldId, e.OldCaps, e.NewCaps = 5, 1000, 1, 3 }), ""),
			Event{Gain: 5, OldID: 1000, OldCaps: 1, NewCaps: 3, Severity: Critical},
		},
		{
			"module", record(with(header(Module, 4), func(e *abi.Event) { e.What, e.How = 2, 1 }), "a\x00", "dummy\x00\x01\x00"),
			Event{Action: 2, Result: 1, Severity: Critical, Executable: []byte("/a"), Name: []byte("dummy")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var raw abi.Event
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), HeaderSize), c.record)
			want := c.want
			want.Monotonic, want.Kind, want.Probe = 5*time.Nanosecond, Kind(raw.Kind), raw.Probe
			want.TGID, want.TID, want.Parent, want.UID, want.EUID, want.LoginUID = raw.Tgid, 8, 9, 10, 11, 12
			want.CgroupID, want.LegacyCgroupID, want.Weight, want.Comm = 6, 14, 13, []byte("sh")
			if want.Class == 0 {
				want.Class = 1
			}
			got := Event{Name: []byte("left over"), Action: 9}
			if err := got.Decode(c.record); err != nil {
				t.Fatal(err)
			}
			for _, text := range []*[]byte{&got.Executable, &got.Name, &got.Arguments} {
				if len(*text) == 0 {
					*text = nil
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	whole := record(header(Exec, 0))
	for name, record := range map[string][]byte{
		"empty": nil, "short": whole[:len(whole)-1], "long": append(bytes.Clone(whole), 0),
		"kind":      record(header(Kind(abi.EventCount), 0)),
		"probe":     record(header(Exec, int(abi.ProbeCount))),
		"class":     record(with(header(Exec, 0), func(e *abi.Event) { e.Class = 4 })),
		"direction": record(with(header(Connect, 1), func(e *abi.Event) { e.What = 2 })),
		"transport": record(with(header(Connect, 1), func(e *abi.Event) { e.How = 2 })),
		"operation": record(with(header(File, 2), func(e *abi.Event) { e.How = 2 }), "", ""),
		"gain":      record(with(header(Gain, 2), func(e *abi.Event) { e.How = uint8(len(abi.Gains)) }), ""),
		"no text":   record(with(header(Exec, 0), func(e *abi.Event) { e.Lengths[0] = 1 })),
		"length":    record(with(header(Exec, 0), func(e *abi.Event) { e.Lengths[0] = uint16(abi.TextLen) + 1 }), "a"),
		"second":    record(with(header(Exec, 0), func(e *abi.Event) { e.Lengths[1] = 1 }), "a"),
	} {
		var e Event
		if err := e.Decode(record); err == nil {
			t.Errorf("%s: decoded as %+v", name, e)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"exec", "exit", "connect", "connect_error", "file", "privilege", "gain", "module"} {
		if got, err := ParseKind(name); err != nil || got != Kind(i) || got.String() != name {
			t.Errorf("%s: %d, %q, %v", name, got, got.String(), err)
		}
	}
	for i, name := range []string{"info", "warning", "critical"} {
		if got, err := ParseSeverity(name); err != nil || got != Severity(i) || got.String() != name {
			t.Errorf("%s: %d, %q, %v", name, got, got.String(), err)
		}
	}
	if _, err := ParseKind("Exec"); err == nil {
		t.Error("Exec is a kind")
	}
	if _, err := ParseSeverity(""); err == nil {
		t.Error("the empty string is a severity")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(record(header(Exec, 0), "bash\x00bin\x00"))
	f.Add(record(header(Connect, 1)))
	f.Add(record(with(header(File, 2), func(e *abi.Event) { e.Truncated = 3 }), "a\x00", "\x00\x00"))
	f.Fuzz(func(t *testing.T, record []byte) {
		var e Event
		if e.Decode(record) != nil {
			return
		}
		if e.Kind.String() == "unknown" || e.Severity.String() == "unknown" || e.Weight == 0 {
			t.Errorf("decoded to nothing: %+v", e)
		}
		if bytes.IndexByte(e.Executable, 0) >= 0 || e.Kind == File && bytes.IndexByte(e.Name, 0) >= 0 {
			t.Errorf("a path with a zero byte: %q %q", e.Executable, e.Name)
		}
	})
}

// BenchmarkDecode decodes copies, as paths are turned around in place.
func BenchmarkDecode(b *testing.B) {
	for name, original := range map[string][]byte{
		"connect": record(header(Connect, 1)),
		"exec":    record(header(Exec, 0), "bash\x00bin\x00usr\x00"),
		"file":    record(header(File, 2), "bash\x00bin\x00usr\x00", "shadow\x00etc\x00"),
	} {
		b.Run(name, func(b *testing.B) {
			buffer := make([]byte, len(original))
			var e Event
			b.ReportAllocs()
			for b.Loop() {
				copy(buffer, original)
				if err := e.Decode(buffer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	original := record(header(File, 2), "bash\x00bin\x00", "shadow\x00etc\x00")
	buffer := make([]byte, len(original))
	var e Event
	if n := testing.AllocsPerRun(100, func() {
		copy(buffer, original)
		_ = e.Decode(buffer)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
