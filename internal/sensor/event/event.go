// SPDX-License-Identifier: Apache-2.0

// Package event reads the detail stream: rings, records, typed events.
package event

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
)

// NoClass is the Class of an event that belongs to no thread group known.
const NoClass = abi.NoClass

// NoID is the LoginUID of who never logged in.
const NoID = abi.NoID

// Kind is what happened.
type Kind uint8

// The kinds, in the order of the border contract.
const (
	Exec         = Kind(abi.EventExec)
	Exit         = Kind(abi.EventExit)
	Connect      = Kind(abi.EventConnect)
	ConnectError = Kind(abi.EventConnectError)
	File         = Kind(abi.EventFile)
	Privilege    = Kind(abi.EventPrivilege)
	Gain         = Kind(abi.EventGain)
	Module       = Kind(abi.EventModule)
)

// String is the kind's name: "exec", "exit", "connect", "connect_error",
// "file", "privilege", "gain" or "module".
func (k Kind) String() string { return nameOf(abi.Kinds, uint8(k)) }

// ParseKind is the reverse of String.
func ParseKind(name string) (Kind, error) {
	for i, known := range abi.Kinds {
		if known == name {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no kind of event: use one of %v", name, abi.Kinds)
}

func nameOf(names []string, i uint8) string {
	if int(i) >= len(names) {
		return "unknown"
	}
	return names[i]
}

// Event is one detail event, decoded in place: its byte slices point into the
// reader's buffer and are valid until the handler returns. They hold any
// bytes: processes choose them.
type Event struct {
	// Monotonic is the time since boot, CLOCK_MONOTONIC, taken in the kernel.
	Monotonic time.Duration
	Kind      Kind
	// Probe and Class are indexes in abi.Probes and abi.Classes; NoClass when
	// the event belongs to no thread group that is known.
	Probe, Class uint8
	Severity     Severity
	// Serious events came through the ring that is never sampled.
	Serious bool
	// Weight is how many events this one stands for, at least 1.
	Weight uint32
	// Thread group, thread and the parent's thread group in the host's pid
	// namespace; 0: unknown.
	TGID, TID, Parent uint32
	// LoginUID is NoID if nobody has logged in.
	UID, EUID, LoginUID uint32
	// CgroupID is that of the v2 hierarchy; 0: unknown.
	CgroupID uint64
	// LegacyCgroupID is that of a version 1 hierarchy, which numbers its
	// cgroups apart; 0: unknown.
	LegacyCgroupID uint64
	Comm           []byte
	// Executable is the path of the thread group's image from the root of its
	// mount namespace; empty: unknown. Of a privilege change by an exec it is
	// the program that gave it.
	Executable []byte
	// Name is the path of the file (File) or the module's name (Module). A
	// path that is cut, here and in Executable, keeps its end and does not
	// begin with a slash.
	Name []byte
	// Arguments of an exec, separated by zero bytes, at most abi.ArgumentsMax
	// bytes. Only with the constant arguments.
	Arguments []byte
	// Truncated: a path or the arguments did not fit.
	Truncated bool
	// Peer is the far end, for Connect and ConnectError. IPv4 is unmapped.
	Peer netip.AddrPort
	// What follows are indexes in the tables of abi, each for its kinds:
	// Connect; ConnectError; File; Privilege and Module; Gain; Module.
	Direction, Transport uint8
	ConnectError         uint8
	Operation            uint8
	Call, Result         uint8
	Gain                 uint8
	Action               uint8
	// OldID and NewID are the effective ids before and after (Privilege,
	// Gain); the capabilities are the effective ones (Gain).
	OldID, NewID     uint32
	OldCaps, NewCaps uint64
}

// Sizes of the records, in bytes.
const (
	HeaderSize         = int(unsafe.Sizeof(abi.Event{}))
	WithExecutableSize = int(unsafe.Sizeof(abi.EventWithExecutable{}))
	WithTextsSize      = int(unsafe.Sizeof(abi.EventWithTexts{}))
)

// Decode reads one record of a ring into the event. It allocates nothing
// unless it fails, and turns the paths in the record around in place. It fails
// on a record of another size and on numbers that the border contract does not
// have.
func (e *Event) Decode(record []byte) error {
	if len(record) != HeaderSize && len(record) != WithExecutableSize && len(record) != WithTextsSize {
		return fmt.Errorf("event of %d bytes: there are none of this size", len(record))
	}
	// The record may lie anywhere in memory, so it is not cast.
	var raw abi.Event
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), HeaderSize), record)
	if int(raw.Kind) >= len(abi.Kinds) || int(raw.Probe) >= len(abi.Probes) {
		return fmt.Errorf("event of kind %d from probe %d: there is no such", raw.Kind, raw.Probe)
	}
	if raw.Class != NoClass && int(raw.Class) >= len(abi.Classes) {
		return fmt.Errorf("event of class %d: there is no such", raw.Class)
	}
	*e = Event{
		Monotonic: time.Duration(raw.TimeNs), Kind: Kind(raw.Kind), Probe: raw.Probe, Class: raw.Class,
		Weight: max(raw.Weight, 1), TGID: raw.Tgid, TID: raw.Tid, Parent: raw.Parent,
		UID: raw.Uid, EUID: raw.Euid, LoginUID: raw.Loginuid, CgroupID: raw.CgroupId, LegacyCgroupID: raw.LegacyCgroupId,
		Comm: untilZero(record[commOffset : commOffset+len(raw.Comm)]), Truncated: raw.Truncated != 0,
	}
	if err := e.decodeKind(&raw); err != nil {
		return err
	}
	return e.decodeTexts(&raw, record[HeaderSize:])
}

const commOffset = int(unsafe.Offsetof(abi.Event{}.Comm))

// decodeKind reads what the kind says of itself.
func (e *Event) decodeKind(raw *abi.Event) error {
	what, how := 1, 1 // sizes of the two enums; 1 where the field is unused
	switch e.Kind {
	case Exec:
		if e.Class == uint8(abi.ClassSuspicious) {
			e.Severity = Critical
		}
	case Connect:
		what, how = len(abi.Directions), len(abi.Transports)
		e.Direction, e.Transport, e.Peer = raw.What, raw.How, peerOf(raw)
	case ConnectError:
		what, how = len(abi.ConnectErrors), len(abi.Transports)
		e.ConnectError, e.Transport, e.Peer, e.Severity = raw.What, raw.How, peerOf(raw), Warning
	case File:
		what, how = len(abi.Severities), len(abi.Operations)
		e.Operation, e.Severity = raw.How, ofFile(raw.What)
	case Privilege:
		what, how = len(abi.Privileges), len(abi.Results)
		e.Call, e.Result, e.OldID, e.NewID = raw.What, raw.How, raw.OldId, raw.NewId
		if e.Result != uint8(abi.ResultSuccess) {
			e.Severity = Warning
		}
	case Gain:
		how = len(abi.Gains)
		e.Gain, e.OldID, e.NewID, e.OldCaps, e.NewCaps = raw.How, raw.OldId, raw.NewId, raw.OldCaps, raw.NewCaps
		e.Severity = Critical
	case Module:
		what, how = len(abi.ModuleActions), len(abi.Results)
		e.Action, e.Result, e.Severity = raw.What, raw.How, Critical
	}
	if int(raw.What) >= what || int(raw.How) >= how {
		return fmt.Errorf("event of kind %s with %d and %d: there is no such", e.Kind, raw.What, raw.How)
	}
	return nil
}

func peerOf(raw *abi.Event) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(raw.Address).Unmap(), raw.Port)
}

// decodeTexts reads what stands behind the header.
func (e *Event) decodeTexts(raw *abi.Event, rest []byte) error {
	var texts [2][]byte
	for i := range texts {
		size := min(len(rest), abi.TextLen)
		if int(raw.Lengths[i]) > size {
			return fmt.Errorf("text of %d bytes in %d", raw.Lengths[i], size)
		}
		texts[i], rest = rest[:raw.Lengths[i]], rest[size:]
	}
	e.Executable = path(texts[0], raw.Truncated&1 != 0)
	switch e.Kind {
	case File:
		e.Name = path(texts[1], raw.Truncated&2 != 0)
	case Module:
		e.Name = untilZero(texts[1])
	case Exec:
		e.Arguments = bytes.TrimSuffix(texts[1], []byte{0})
	}
	return nil
}

// path turns the components of a path around, in place: "b\0a\0" is "/a/b".
// One that is cut begins with its first component, without the slash.
func path(text []byte, truncated bool) []byte {
	if len(text) == 0 {
		return nil
	}
	reverse(text)
	begin := 0
	for i := range text {
		if text[i] == 0 {
			reverse(text[begin:i])
			text[i], begin = '/', i+1
		}
	}
	reverse(text[begin:])
	if truncated {
		return text[1:]
	}
	return text
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

func untilZero(b []byte) []byte {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return b[:end]
	}
	return b
}

// Probe reports which probe a record that Decode refused came from, for the
// count of such: false if not even that can be told.
func Probe(record []byte) (int, bool) {
	const offset = int(unsafe.Offsetof(abi.Event{}.Probe))
	if len(record) <= offset || int(record[offset]) >= len(abi.Probes) {
		return 0, false
	}
	return int(record[offset]), true
}
