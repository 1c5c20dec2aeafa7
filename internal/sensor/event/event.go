// SPDX-License-Identifier: Apache-2.0

// Package event reads the detail stream: ring, records, typed events.
package event

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
)

// Event is one detail event. Strings are as the kernel had them: any bytes.
type Event struct {
	// Monotonic is the time since boot, CLOCK_MONOTONIC.
	Monotonic time.Duration
	Probe     string
	Kind      string
	// Class of the thread group, or "" when the event belongs to none.
	Class      string
	Weight     uint32
	TGID, TID  uint32
	UID, EUID  uint32
	CgroupID   uint64
	Comm, Name string
	Peer       netip.AddrPort
	What, How  uint8
	A, B       uint32
}

// kinds are the names of the event kinds, by number.
var kinds = map[uint8]string{
	uint8(abi.EventExec): "exec", uint8(abi.EventExit): "exit", uint8(abi.EventConnect): "connect",
	uint8(abi.EventConnectError): "connect_error", uint8(abi.EventFile): "file",
	uint8(abi.EventPrivilege): "privilege", uint8(abi.EventGain): "gain", uint8(abi.EventModule): "module",
}

// Decode reads one record of the ring. It fails on a record of another size
// or with numbers that the border contract does not have.
func Decode(record []byte) (Event, error) {
	var raw abi.Event
	size := int(unsafe.Sizeof(raw))
	if len(record) != size {
		return Event{}, fmt.Errorf("event of %d bytes, want %d", len(record), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), size), record)
	kind, ok := kinds[raw.Kind]
	if !ok || int(raw.Probe) >= len(abi.Probes) {
		return Event{}, fmt.Errorf("event of kind %d from probe %d: there is no such", raw.Kind, raw.Probe)
	}
	out := Event{
		Monotonic: time.Duration(raw.TimeNs), Probe: abi.Probes[raw.Probe], Kind: kind, Weight: raw.Weight,
		TGID: raw.Tgid, TID: raw.Tid, UID: raw.Uid, EUID: raw.Euid, CgroupID: raw.CgroupId,
		Comm: text(raw.Comm[:]), Name: text(raw.Name[:]), What: raw.What, How: raw.How, A: raw.A, B: raw.B,
	}
	if raw.Tgid != 0 && int(raw.Class) < len(abi.Classes) {
		out.Class = abi.Classes[raw.Class]
	}
	if raw.Address != [16]uint8{} {
		out.Peer = netip.AddrPortFrom(netip.AddrFrom16(raw.Address).Unmap(), uint16(raw.B))
	}
	return out, nil
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// RecordSize is the size of a record in the ring, in bytes.
const RecordSize = int(unsafe.Sizeof(abi.Event{}))
