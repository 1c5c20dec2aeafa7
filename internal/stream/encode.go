// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
)

// The severity numbers of the OpenTelemetry logs data model: INFO, WARN, and
// ERROR2, which is what it gives to syslog's "critical".
var severityNumbers = [...]uint64{event.Info: 9, event.Warning: 13, event.Critical: 18}

// timeLayout has all nine digits, so that the lines sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// resync is how long the difference between the two clocks is taken for
// constant; the wall clock may be set.
const resync = time.Second

// Encoder turns events into lines. It is for one goroutine. It allocates
// nothing if the buffer it appends to is large enough.
type Encoder struct {
	// wall and monotonic are two readings of the same moment.
	wall      time.Time
	monotonic time.Duration
	clock     func() (wall time.Time, monotonic time.Duration)
}

// NewEncoder returns an encoder that reads the system's clocks.
func NewEncoder() *Encoder { return &Encoder{clock: systemClocks} }

// systemClocks reads CLOCK_REALTIME and CLOCK_MONOTONIC (clock_gettime(2)).
func systemClocks() (time.Time, time.Duration) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Now(), 0 // the kernel always has this clock
	}
	return time.Now(), time.Duration(ts.Nano())
}

// wallTime is when an event of the kernel's monotonic clock happened. The clocks
// are read again for an event that is newer than the last reading by resync;
// older ones, a backlog, have the difference that was found then.
func (e *Encoder) wallTime(at time.Duration) time.Time {
	if e.wall.IsZero() || at-e.monotonic > resync {
		e.wall, e.monotonic = e.clock()
	}
	return e.wall.Add(at - e.monotonic)
}

// Append appends the event as one line with its newline. id may be nil.
func (e *Encoder) Append(dst []byte, ev *event.Event, id *identity.Identity) []byte {
	o := object{buf: dst}
	o.begin(e.wallTime(ev.Monotonic), ev.Kind.String(), ev.Severity)
	o.known("security.probe", label(abi.Probes, ev.Probe))
	o.known("security.class", label(abi.Classes, ev.Class))
	o.uint("security.weight", uint64(ev.Weight))
	if ev.Truncated {
		o.key("security.truncated")
		o.buf = append(o.buf, "true"...)
	}
	o.process(ev)
	o.identity(ev.CgroupID, id)
	o.detail(ev)
	return append(o.buf, '}', '\n')
}

func (o *object) begin(at time.Time, kind string, severity event.Severity) {
	severity = min(severity, event.Critical)
	o.buf = append(o.buf, '{')
	o.uint("schema", SchemaVersion)
	o.key("timestamp")
	o.buf = append(o.buf, '"')
	o.buf = at.UTC().AppendFormat(o.buf, timeLayout)
	o.buf = append(o.buf, '"')
	o.key("event.name")
	o.buf = append(append(append(append(o.buf, '"'), eventPrefix...), kind...), '"')
	o.text("severity_text", severity.String())
	o.uint("severity_number", severityNumbers[severity])
}

func (o *object) process(ev *event.Event) {
	if ev.TGID != 0 {
		o.uint("process.pid", uint64(ev.TGID))
		o.uint("security.process.tid", uint64(ev.TID))
		if ev.Parent != 0 {
			o.uint("process.parent_pid", uint64(ev.Parent))
		}
		o.uint("process.user.id", uint64(ev.EUID))
		o.uint("process.real_user.id", uint64(ev.UID))
		if ev.LoginUID != event.NoID {
			o.uint("security.login_user.id", uint64(ev.LoginUID))
		}
	}
	o.bytes("process.executable.name", ev.Comm)
	o.bytes("process.executable.path", ev.Executable)
	o.arguments(ev.Arguments)
}

// arguments splits at the NULs. The last one ends the last argument, or is
// missing if that one was cut.
func (o *object) arguments(all []byte) {
	if len(all) == 0 {
		return
	}
	o.key("process.command_args")
	o.buf = append(o.buf, '[')
	all = bytes.TrimSuffix(all, []byte{0})
	for first, more := true, true; more; first = false {
		var one []byte
		one, all, more = bytes.Cut(all, []byte{0})
		if !first {
			o.buf = append(o.buf, ',')
		}
		o.buf = appendString(o.buf, one)
	}
	o.buf = append(o.buf, ']')
}

func (o *object) identity(cgroup uint64, id *identity.Identity) {
	if cgroup != 0 {
		o.idString("security.cgroup.id", cgroup)
	}
	if id == nil {
		return
	}
	o.known("container.id", id.ContainerID)
	o.known("security.container.outer_id", id.OuterID)
	o.known("container.name", id.ContainerName)
	o.known("container.image.name", id.Image)
	o.known("container.runtime.name", id.Runtime)
	o.known("k8s.pod.uid", id.PodUID)
	o.known("k8s.pod.name", id.PodName)
	o.known("k8s.namespace.name", id.PodNamespace)
	o.known("security.systemd.unit", id.Unit)
}

// detail appends what only this kind has.
func (o *object) detail(ev *event.Event) {
	switch uint32(ev.Kind) {
	case uint32(abi.EventConnect):
		o.known("security.network.direction", label(abi.Directions, ev.Direction))
		o.peer(ev)
	case uint32(abi.EventConnectError):
		o.known("error.type", label(abi.ConnectErrors, ev.ConnectError))
		o.peer(ev)
	case uint32(abi.EventFile):
		o.bytes("file.path", ev.Name)
		o.known("security.file.operation", label(abi.Operations, ev.Operation))
	case uint32(abi.EventPrivilege):
		o.known("security.privilege.call", label(abi.Privileges, ev.Call))
		o.known("security.result", label(abi.Results, ev.Result))
		o.uint("security.privilege.old_id", uint64(ev.OldID))
		o.uint("security.privilege.new_id", uint64(ev.NewID))
	case uint32(abi.EventGain):
		o.known("security.privilege.via", label(abi.Gains, ev.Gain))
		o.uint("security.privilege.old_id", uint64(ev.OldID))
		o.uint("security.privilege.new_id", uint64(ev.NewID))
		o.hex("security.privilege.old_capabilities", ev.OldCaps)
		o.hex("security.privilege.new_capabilities", ev.NewCaps)
	case uint32(abi.EventModule):
		o.bytes("security.module.name", ev.Name)
		o.known("security.module.action", label(abi.ModuleActions, ev.Action))
		o.known("security.result", label(abi.Results, ev.Result))
	}
}

func (o *object) peer(ev *event.Event) {
	o.known("network.transport", label(abi.Transports, ev.Transport))
	if !ev.Peer.IsValid() {
		return
	}
	addr := ev.Peer.Addr().Unmap().WithZone("")
	if addr.Is4() {
		o.text("network.type", "ipv4")
	} else {
		o.text("network.type", "ipv6")
	}
	o.key("network.peer.address")
	o.buf = append(o.buf, '"')
	o.buf = addr.AppendTo(o.buf)
	o.buf = append(o.buf, '"')
	o.uint("network.peer.port", uint64(ev.Peer.Port()))
}

// appendLost appends the record of a gap: how many lines, and how many events
// they stood for.
func appendLost(dst []byte, at time.Time, records, events uint64) []byte {
	o := object{buf: dst}
	o.begin(at, KindLost, event.Warning)
	o.uint("security.lost.records", records)
	o.uint("security.lost.events", events)
	return append(o.buf, '}', '\n')
}

// label is the name of an index, or nothing for one that the border contract
// does not have.
func label(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return ""
}
