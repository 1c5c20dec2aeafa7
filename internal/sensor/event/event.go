// SPDX-License-Identifier: Apache-2.0

// Package event reads the detail stream: ring, records, typed events.
package event

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
)

// Kind is what happened: a value of enum event_kind.
type Kind uint8

// String returns the kind as the stream spells it.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "unknown"
}

var kinds = [...]string{"exec", "exit", "connect", "connect_error", "file", "privilege", "gain", "module"}

// Severity is how much an event matters.
type Severity uint8

// The severities.
const (
	Info Severity = iota
	Warning
	Critical
)

// NoClass is the class of an event that belongs to no thread group.
const NoClass = 0xff

// Event is one detail event, decoded in place: its byte slices point into the
// reader's buffer and are valid until the handler returns. Any bytes: hostile.
type Event struct {
	// Monotonic is the time since boot, CLOCK_MONOTONIC.
	Monotonic            time.Duration
	Kind                 Kind
	Probe, Class         uint8
	Severity             Severity
	Serious              bool
	Weight               uint32
	TGID, TID, Parent    uint32
	UID, EUID, LoginUID  uint32
	CgroupID             uint64
	Comm                 []byte
	Executable           []byte
	Name                 []byte
	Arguments            []byte
	Truncated            bool
	Peer                 netip.AddrPort
	Direction, Transport uint8
	ConnectError         uint8
	Operation            uint8
	Call, Result         uint8
	Gain                 uint8
	OldID, NewID         uint32
	OldCaps, NewCaps     uint64
	Action               uint8
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
	if int(raw.Kind) >= len(kinds) || int(raw.Probe) >= len(abi.Probes) {
		return Event{}, fmt.Errorf("event of kind %d from probe %d: there is no such", raw.Kind, raw.Probe)
	}
	out := Event{
		Monotonic: time.Duration(raw.TimeNs), Probe: raw.Probe, Kind: Kind(raw.Kind), Class: NoClass, Weight: raw.Weight,
		TGID: raw.Tgid, TID: raw.Tid, UID: raw.Uid, EUID: raw.Euid, CgroupID: raw.CgroupId,
		Comm: text(raw.Comm[:]), Name: text(raw.Name[:]),
	}
	if raw.Tgid != 0 && int(raw.Class) < len(abi.Classes) {
		out.Class = raw.Class
	}
	if raw.Address != [16]uint8{} {
		out.Peer = netip.AddrPortFrom(netip.AddrFrom16(raw.Address).Unmap(), uint16(raw.B))
	}
	return out, nil
}

func text(b []byte) []byte {
	b, _, _ = bytes.Cut(bytes.Clone(b), []byte{0})
	return b
}

// RecordSize is the size of a record in the ring, in bytes.
const RecordSize = int(unsafe.Sizeof(abi.Event{}))
