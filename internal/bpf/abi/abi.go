// SPDX-License-Identifier: Apache-2.0

// Package abi holds the types that cross the kernel border, generated once
// from ../abi.h. The aliases give them Go names; nothing here re-types a
// number.
package abi

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -type probe_id -type process_class -type direction -type transport -type connect_error -type file_severity -type file_operation -type privilege_call -type result -type privilege_gain -type module_action -type loss -type event_reader -type table -type event_kind -type watch_limit -type process_limit -type socket_limit -type text_length -type no_value -type process -type process_slot -type event -type event_with_executable -type event_with_texts -type object -type watch -type name -type directory -type pattern -type identity bpf abi.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I.. -I../vmlinux

// The border types. One Go type for each C type.
type (
	Process = bpfProcess
	// ProcessSlot is a place of the table for one Process.
	ProcessSlot = bpfProcessSlot
	Event       = bpfEvent
	// EventWithExecutable and EventWithTexts are an Event and what follows it.
	EventWithExecutable = bpfEventWithExecutable
	EventWithTexts      = bpfEventWithTexts
	Object              = bpfObject
	Watch               = bpfWatch
	Name                = bpfName
	Directory           = bpfDirectory
	Pattern             = bpfPattern
	Identity            = bpfIdentity
)

// Index values, in the order of the counter arrays.
const (
	ProbeProcess   = bpfProbeIdPROBE_PROCESS
	ProbeNetwork   = bpfProbeIdPROBE_NETWORK
	ProbeFile      = bpfProbeIdPROBE_FILE
	ProbePrivilege = bpfProbeIdPROBE_PRIVILEGE
	ProbeKernel    = bpfProbeIdPROBE_KERNEL
	ProbeCount     = bpfProbeIdPROBE_COUNT

	TableProcesses = bpfTableTABLE_PROCESSES
	TableSockets   = bpfTableTABLE_SOCKETS
	TableFlows     = bpfTableTABLE_FLOWS
	TablePending   = bpfTableTABLE_PENDING
	TableThreads   = bpfTableTABLE_THREADS

	LossCount     = bpfLossLOSS_COUNT
	LossDecode    = bpfLossLOSS_DECODE
	LossRecursion = bpfLossLOSS_RECURSION

	ReaderFrequent = bpfEventReaderREADER_FREQUENT
	ReaderSerious  = bpfEventReaderREADER_SERIOUS

	SeverityCritical = bpfFileSeveritySEVERITY_CRITICAL
	SeverityWarning  = bpfFileSeveritySEVERITY_WARNING
	SeverityInfo     = bpfFileSeveritySEVERITY_INFO
	SeverityNone     = bpfFileSeveritySEVERITY_COUNT

	NameLen                = int(bpfTextLengthNAME_LEN)
	TextLen                = int(bpfTextLengthTEXT_LEN)
	ArgumentsMax           = int(bpfTextLengthARGUMENTS_MAX)
	WatchObjects           = int(bpfWatchLimitWATCH_OBJECTS)
	WatchDirectories       = int(bpfWatchLimitWATCH_DIRECTORIES)
	WatchNames             = int(bpfWatchLimitWATCH_NAMES)
	WatchPatterns          = int(bpfWatchLimitWATCH_PATTERNS)
	WatchDirectoryPatterns = int(bpfWatchLimitWATCH_DIRECTORY_PATTERNS)
	WatchDepth             = int(bpfWatchLimitWATCH_DEPTH)
	WatchFilterBits        = int(bpfWatchLimitWATCH_FILTER_BITS)

	SocketSets         = uint32(bpfSocketLimitSOCKET_SETS)
	SocketWays         = uint32(bpfSocketLimitSOCKET_WAYS)
	SocketsBesideSets  = uint32(bpfSocketLimitSOCKETS_BESIDE_SETS)
	SocketsWithoutSets = uint32(bpfSocketLimitSOCKETS_WITHOUT_SETS)

	ProcessSlots          = uint32(bpfProcessLimitPROCESS_SLOTS)
	ProcessesBesideSlots  = uint32(bpfProcessLimitPROCESSES_BESIDE_SLOTS)
	ProcessesWithoutSlots = uint32(bpfProcessLimitPROCESSES_WITHOUT_SLOTS)

	EventExec         = bpfEventKindEVENT_EXEC
	EventExit         = bpfEventKindEVENT_EXIT
	EventConnect      = bpfEventKindEVENT_CONNECT
	EventConnectError = bpfEventKindEVENT_CONNECT_ERROR
	EventFile         = bpfEventKindEVENT_FILE
	EventPrivilege    = bpfEventKindEVENT_PRIVILEGE
	EventGain         = bpfEventKindEVENT_GAIN
	EventModule       = bpfEventKindEVENT_MODULE
	EventCount        = bpfEventKindEVENT_COUNT

	NoClass = uint8(bpfNoValueNO_CLASS)
	NoID    = uint32(bpfNoValueNO_ID)

	ClassSystem     = bpfProcessClassCLASS_SYSTEM
	ClassUser       = bpfProcessClassCLASS_USER
	ClassContainer  = bpfProcessClassCLASS_CONTAINER
	ClassSuspicious = bpfProcessClassCLASS_SUSPICIOUS

	DirectionIn  = bpfDirectionDIRECTION_IN
	DirectionOut = bpfDirectionDIRECTION_OUT

	TransportTCP = bpfTransportTRANSPORT_TCP
	TransportUDP = bpfTransportTRANSPORT_UDP

	ConnectErrorTimeout = bpfConnectErrorCONNECT_ERROR_TIMEOUT
	ConnectErrorRefused = bpfConnectErrorCONNECT_ERROR_REFUSED
	ConnectErrorReset   = bpfConnectErrorCONNECT_ERROR_RESET

	OperationRead  = bpfFileOperationOPERATION_READ
	OperationWrite = bpfFileOperationOPERATION_WRITE

	PrivilegeSetuid      = bpfPrivilegeCallPRIVILEGE_SETUID
	PrivilegeSetgid      = bpfPrivilegeCallPRIVILEGE_SETGID
	PrivilegeCapset      = bpfPrivilegeCallPRIVILEGE_CAPSET
	PrivilegeSuidExec    = bpfPrivilegeCallPRIVILEGE_SUID_EXEC
	PrivilegeFilecapExec = bpfPrivilegeCallPRIVILEGE_FILECAP_EXEC

	ResultSuccess = bpfResultRESULT_SUCCESS
	ResultFailure = bpfResultRESULT_FAILURE

	GainSetID       = bpfPrivilegeGainGAIN_SET_ID
	GainCapset      = bpfPrivilegeGainGAIN_CAPSET
	GainSuidExec    = bpfPrivilegeGainGAIN_SUID_EXEC
	GainFilecapExec = bpfPrivilegeGainGAIN_FILECAP_EXEC
	GainUserns      = bpfPrivilegeGainGAIN_USERNS
	GainOther       = bpfPrivilegeGainGAIN_OTHER

	ModuleLoad     = bpfModuleActionMODULE_LOAD
	ModuleLoadFile = bpfModuleActionMODULE_LOAD_FILE
	ModuleUnload   = bpfModuleActionMODULE_UNLOAD

	LossRingFull = bpfLossLOSS_RING_FULL
	LossBudget   = bpfLossLOSS_BUDGET
)

// Label values of each enum, indexed by the enum.
var (
	Probes = names(bpfProbeIdPROBE_COUNT, map[bpfProbeId]string{
		ProbeProcess:   "process",
		ProbeNetwork:   "network",
		ProbeFile:      "file",
		ProbePrivilege: "privilege",
		ProbeKernel:    "kernel",
	})
	Classes = names(bpfProcessClassCLASS_COUNT, map[bpfProcessClass]string{
		bpfProcessClassCLASS_SYSTEM:     "system",
		bpfProcessClassCLASS_USER:       "user",
		bpfProcessClassCLASS_CONTAINER:  "container",
		bpfProcessClassCLASS_SUSPICIOUS: "suspicious",
	})
	Directions = names(bpfDirectionDIRECTION_COUNT, map[bpfDirection]string{
		bpfDirectionDIRECTION_IN:  "in",
		bpfDirectionDIRECTION_OUT: "out",
	})
	Transports = names(bpfTransportTRANSPORT_COUNT, map[bpfTransport]string{
		bpfTransportTRANSPORT_TCP: "tcp",
		bpfTransportTRANSPORT_UDP: "udp",
	})
	ConnectErrors = names(bpfConnectErrorCONNECT_ERROR_COUNT, map[bpfConnectError]string{
		bpfConnectErrorCONNECT_ERROR_TIMEOUT: "timeout",
		bpfConnectErrorCONNECT_ERROR_REFUSED: "refused",
		bpfConnectErrorCONNECT_ERROR_RESET:   "reset",
	})
	Severities = names(bpfFileSeveritySEVERITY_COUNT, map[bpfFileSeverity]string{
		bpfFileSeveritySEVERITY_CRITICAL: "critical",
		bpfFileSeveritySEVERITY_WARNING:  "warning",
		bpfFileSeveritySEVERITY_INFO:     "info",
	})
	Operations = names(bpfFileOperationOPERATION_COUNT, map[bpfFileOperation]string{
		bpfFileOperationOPERATION_READ:  "read",
		bpfFileOperationOPERATION_WRITE: "write",
	})
	Privileges = names(bpfPrivilegeCallPRIVILEGE_COUNT, map[bpfPrivilegeCall]string{
		bpfPrivilegeCallPRIVILEGE_SETUID:       "setuid",
		bpfPrivilegeCallPRIVILEGE_SETGID:       "setgid",
		bpfPrivilegeCallPRIVILEGE_CAPSET:       "capset",
		bpfPrivilegeCallPRIVILEGE_SUID_EXEC:    "suid_exec",
		bpfPrivilegeCallPRIVILEGE_FILECAP_EXEC: "filecap_exec",
	})
	Results = names(bpfResultRESULT_COUNT, map[bpfResult]string{
		bpfResultRESULT_SUCCESS: "success",
		bpfResultRESULT_FAILURE: "failure",
	})
	Kinds = names(bpfEventKindEVENT_COUNT, map[bpfEventKind]string{
		EventExec:         "exec",
		EventExit:         "exit",
		EventConnect:      "connect",
		EventConnectError: "connect_error",
		EventFile:         "file",
		EventPrivilege:    "privilege",
		EventGain:         "gain",
		EventModule:       "module",
	})
	Gains = names(bpfPrivilegeGainGAIN_COUNT, map[bpfPrivilegeGain]string{
		bpfPrivilegeGainGAIN_SET_ID:       "set_id",
		bpfPrivilegeGainGAIN_CAPSET:       "capset",
		bpfPrivilegeGainGAIN_SUID_EXEC:    "suid_exec",
		bpfPrivilegeGainGAIN_FILECAP_EXEC: "filecap_exec",
		bpfPrivilegeGainGAIN_USERNS:       "userns",
		bpfPrivilegeGainGAIN_OTHER:        "other",
	})
	ModuleActions = names(bpfModuleActionMODULE_COUNT, map[bpfModuleAction]string{
		bpfModuleActionMODULE_LOAD:      "load",
		bpfModuleActionMODULE_LOAD_FILE: "load_file",
		bpfModuleActionMODULE_UNLOAD:    "unload",
	})
	Losses = names(bpfLossLOSS_COUNT, map[bpfLoss]string{
		bpfLossLOSS_RING_FULL: "ring_full",
		bpfLossLOSS_BUDGET:    "budget",
		bpfLossLOSS_DECODE:    "decode",
		bpfLossLOSS_RECURSION: "recursion",
	})
	Tables = names(bpfTableTABLE_COUNT, map[bpfTable]string{
		TableProcesses: "processes",
		TableSockets:   "sockets",
		TableFlows:     "flows",
		TablePending:   "pending",
		TableThreads:   "threads",
	})
)

// names lays labels out by index. It panics when one is missing: the tables
// above are literals, and a gap would shift every label after it.
func names[E ~uint32](count E, by map[E]string) []string {
	out := make([]string, count)
	for i := range out {
		name, ok := by[E(i)]
		if !ok {
			panic("abi: an enum value has no label")
		}
		out[i] = name
	}
	return out
}
