// SPDX-License-Identifier: Apache-2.0

package event

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
)

func bytesOf(e *abi.Event) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e))
}

func TestDecode(t *testing.T) {
	t.Parallel()
	raw := abi.Event{
		TimeNs: 5, CgroupId: 6, Tgid: 7, Tid: 8, Uid: 9, Euid: 10, Weight: 11, A: 12, B: 443,
		Kind: uint8(abi.EventConnect), Probe: uint8(abi.ProbeNetwork), Class: 3, What: 1, How: 0,
		Address: [16]uint8{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 1},
		Comm:    [16]uint8{'s', 'h', 0, 'x'}, Name: [64]uint8{0xff, '\n'},
	}
	got, err := Decode(bytesOf(&raw))
	want := Event{
		Monotonic: 5 * time.Nanosecond, Probe: uint8(abi.ProbeNetwork), Kind: Kind(abi.EventConnect), Class: 3, Weight: 11,
		TGID: 7, TID: 8, UID: 9, EUID: 10, CgroupID: 6, Comm: []byte("sh"), Name: []byte("\xff\n"),
		Peer: netip.MustParseAddrPort("192.0.2.1:443"),
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	whole := bytesOf(&abi.Event{})
	unknownKind := abi.Event{Kind: 200}
	unknownProbe := abi.Event{Probe: 200}
	for name, record := range map[string][]byte{
		"empty": nil, "short": whole[:len(whole)-1], "long": append(append([]byte{}, whole...), 0),
		"unknown kind": bytesOf(&unknownKind), "unknown probe": bytesOf(&unknownProbe),
	} {
		if e, err := Decode(record); err == nil {
			t.Errorf("%s: decoded as %+v", name, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(&abi.Event{}))
	f.Fuzz(func(t *testing.T, record []byte) {
		if e, err := Decode(record); err == nil && (e.Kind.String() == "unknown") {
			t.Errorf("decoded to nothing: %+v", e)
		}
	})
}
