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

// Kind is what an event tells of, in the order of the border contract.
type Kind uint8

var kinds = [...]string{"exec", "exit", "connect", "connect_error", "file", "privilege", "gain", "module"}

// String is the kind as filters and metrics spell it.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "unknown"
}

// Severity says how serious an event is, the least first.
type Severity uint8

// The severities.
const (
	Info Severity = iota
	Warning
	Critical
)

var severities = [...]string{"info", "warning", "critical"}

// String is the severity as filters and metrics spell it.
func (s Severity) String() string {
	if int(s) < len(severities) {
		return severities[s]
	}
	return "unknown"
}

// ParseSeverity is the reverse of String.
func ParseSeverity(s string) (Severity, bool) {
	for i, name := range severities {
		if s == name {
			return Severity(i), true
		}
	}
	return 0, false
}

const (
	// NoClass is the class of an event that belongs to no thread group.
	NoClass = 0xff
	// NoID is a login uid that was never set.
	NoID = 0xffffffff
)

// Event is one detail event, decoded in place: its byte slices point into the
// reader's buffer and are valid until the handler returns. Any bytes: hostile.
type Event struct {
	Monotonic               time.Duration // since boot, CLOCK_MONOTONIC
	Kind                    Kind
	Probe                   uint8 // index in abi.Probes
	Class                   uint8 // index in abi.Classes, or NoClass
	Severity                Severity
	Serious                 bool   // came through the ring that is never sampled
	Weight                  uint32 // how many events this one stands for, >= 1
	TGID, TID, Parent       uint32 // host pids; 0: unknown
	UID, EUID, LoginUID     uint32 // LoginUID NoID: not set
	CgroupID                uint64 // v2; 0 unknown
	Comm                    []byte
	Executable              []byte // path; empty: unknown
	Name                    []byte // file: path of the file; module: its name
	Arguments               []byte // exec: NUL-separated, capped
	Truncated               bool   // a path or the arguments did not fit
	Peer                    netip.AddrPort
	Direction, Transport    uint8
	ConnectError, Operation uint8
	Call, Result, Gain      uint8
	OldID, NewID            uint32
	OldCaps, NewCaps        uint64
	Action                  uint8
}

// Decode reads one record of the ring into out. It fails on a record of
// another size or with numbers that the border contract does not have.
func (out *Event) Decode(record []byte) error {
	var raw abi.Event
	size := int(unsafe.Sizeof(raw))
	if len(record) != size {
		return fmt.Errorf("event of %d bytes, want %d", len(record), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), size), record)
	if int(raw.Kind) >= len(kinds) || int(raw.Probe) >= len(abi.Probes) {
		return fmt.Errorf("event of kind %d from probe %d: there is no such", raw.Kind, raw.Probe)
	}
	*out = Event{
		Monotonic: time.Duration(raw.TimeNs), Probe: raw.Probe, Kind: Kind(raw.Kind), Weight: raw.Weight, Class: NoClass,
		TGID: raw.Tgid, TID: raw.Tid, UID: raw.Uid, EUID: raw.Euid, LoginUID: NoID, CgroupID: raw.CgroupId,
		Comm: text(raw.Comm[:]), Name: text(raw.Name[:]),
	}
	if raw.Tgid != 0 && int(raw.Class) < len(abi.Classes) {
		out.Class = raw.Class
	}
	if raw.Address != [16]uint8{} {
		out.Peer = netip.AddrPortFrom(netip.AddrFrom16(raw.Address).Unmap(), uint16(raw.B))
	}
	return nil
}

func text(b []byte) []byte {
	s, _, _ := bytes.Cut(b, []byte{0})
	return s
}

// RecordSize is the size of a record in the ring, in bytes.
const RecordSize = int(unsafe.Sizeof(abi.Event{}))
