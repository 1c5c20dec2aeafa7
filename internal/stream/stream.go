// SPDX-License-Identifier: Apache-2.0

// Package stream carries detail events out of the exporter: it turns each into
// one line of JSON (Encoder), hands the line to everyone who asked for it
// without ever waiting for them (Hub), and writes it to stdout or a file
// (Output). docs/events.md describes the lines, docs/events.schema.json is
// their schema.
//
// A slow reader loses events, is told how many, and slows nobody else.
package stream

// SchemaVersion is the version of the record format. It grows when a field is
// renamed, removed or changes its meaning; a new field does not change it.
const SchemaVersion = 1

// eventPrefix is put before a kind to make the event name.
const eventPrefix = "security."

// KindLost is the kind of the record that says how much a reader has lost.
const KindLost = "lost"

// Record is one line, for programs that read the stream. Which fields a kind
// has is in docs/events.md; those that it does not have are zero or nil.
type Record struct {
	Schema         int     `json:"schema"`
	Timestamp      string  `json:"timestamp"` // RFC 3339, UTC, nanoseconds
	EventName      string  `json:"event.name"`
	SeverityText   string  `json:"severity_text"`
	SeverityNumber int     `json:"severity_number"`
	Probe          string  `json:"security.probe,omitempty"`
	Class          string  `json:"security.class,omitempty"`
	Weight         *uint32 `json:"security.weight,omitempty"`
	Truncated      bool    `json:"security.truncated,omitempty"`

	PID            *uint32  `json:"process.pid,omitempty"`
	TID            *uint32  `json:"security.process.tid,omitempty"`
	ParentPID      *uint32  `json:"process.parent_pid,omitempty"`
	UserID         *uint32  `json:"process.user.id,omitempty"`
	RealUserID     *uint32  `json:"process.real_user.id,omitempty"`
	LoginUserID    *uint32  `json:"security.login_user.id,omitempty"`
	ExecutableName string   `json:"process.executable.name,omitempty"`
	ExecutablePath string   `json:"process.executable.path,omitempty"`
	Arguments      []string `json:"process.command_args,omitempty"`

	CgroupID       string `json:"security.cgroup.id,omitempty"` // a decimal number
	ContainerID    string `json:"container.id,omitempty"`
	OuterID        string `json:"security.container.outer_id,omitempty"`
	ContainerName  string `json:"container.name,omitempty"`
	ContainerImage string `json:"container.image.name,omitempty"`
	Runtime        string `json:"container.runtime.name,omitempty"`
	PodUID         string `json:"k8s.pod.uid,omitempty"`
	PodName        string `json:"k8s.pod.name,omitempty"`
	Namespace      string `json:"k8s.namespace.name,omitempty"`
	Unit           string `json:"security.systemd.unit,omitempty"`

	PeerAddress string  `json:"network.peer.address,omitempty"`
	PeerPort    *uint16 `json:"network.peer.port,omitempty"`
	Transport   string  `json:"network.transport,omitempty"`
	NetworkType string  `json:"network.type,omitempty"`
	Direction   string  `json:"security.network.direction,omitempty"`
	ErrorType   string  `json:"error.type,omitempty"`

	FilePath  string `json:"file.path,omitempty"`
	Operation string `json:"security.file.operation,omitempty"`

	Call    string  `json:"security.privilege.call,omitempty"`
	Via     string  `json:"security.privilege.via,omitempty"`
	Result  string  `json:"security.result,omitempty"`
	OldID   *uint32 `json:"security.privilege.old_id,omitempty"`
	NewID   *uint32 `json:"security.privilege.new_id,omitempty"`
	OldCaps string  `json:"security.privilege.old_capabilities,omitempty"` // hexadecimal
	NewCaps string  `json:"security.privilege.new_capabilities,omitempty"`

	ModuleName   string `json:"security.module.name,omitempty"`
	ModuleAction string `json:"security.module.action,omitempty"`

	LostRecords uint64 `json:"security.lost.records,omitempty"`
	LostEvents  uint64 `json:"security.lost.events,omitempty"`
}

// Kind is the kind of the record: exec, connect, ..., or lost.
func (r *Record) Kind() string {
	if len(r.EventName) > len(eventPrefix) {
		return r.EventName[len(eventPrefix):]
	}
	return ""
}
