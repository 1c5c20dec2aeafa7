// SPDX-License-Identifier: Apache-2.0

// Package config turns the command line and the configuration file into one
// validated struct. Nothing else in the program looks at flags: what Parse
// returns is complete and in range, and an error is one line that names the
// flag (or file, line and key), the value, and what is allowed.
//
// It knows neither probes nor collectors; their names come in with Known.
package config

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/exporter-toolkit/web"
)

// ErrPrinted is returned by Parse when --help or --version was asked for and
// has been written: there is nothing left to do, and nothing went wrong.
var ErrPrinted = errors.New("help or version printed")

// Limits of the numeric flags.
const (
	MinSampleRate        = 1
	MaxSampleRate        = 10000
	MinEventsPerSecond   = 1
	MaxEventsPerSecond   = 1000000
	DefaultListenAddress = ":9102"
	DefaultTelemetryPath = "/metrics"
	// DefaultAPIAddress is where the local API listens if nothing else is said.
	DefaultAPIAddress = "/run/security-exporter/api.sock"
	MinTopCapacity    = 10
	MaxTopCapacity    = 1000
	MinTopWindow      = 10 * time.Second
	MaxTopWindow      = 24 * time.Hour
	MaxFileMiB        = 10000
	MaxFileBackups    = 1000
	MinInterval       = 5 * time.Second
	MaxInterval       = 24 * time.Hour

	defaultSampleRate   = "1"
	defaultEventsPerSec = "5000"
	defaultTopCapacity  = "100"
	defaultTopN         = "10"
	defaultTopWindow    = "10m"
	defaultFileMiB      = "100"
	defaultFileBackups  = "3"
)

// hookPolicies are the values of --ebpf.hook-policy; the first is the default.
var hookPolicies = []string{"auto", "fentry", "kprobe", "tracepoint"}

// Known is what the caller brings: names that become flags or flag values.
type Known struct {
	// Probes are the values of --ebpf.probes, in the order they are started.
	Probes []string
	// Collectors become --collector.NAME and --no-collector.NAME, on unless
	// the name is in OffByDefault.
	Collectors   []string
	OffByDefault []string
	// PortStates are the values of --collector.port-states; Checks the ids
	// that the configuration file may waive.
	PortStates, Checks []string
	// Version is what --version prints, without a newline at the end.
	Version string
}

// Config holds every setting, validated. It is read-only after Parse.
type Config struct {
	// Web is what the exporter-toolkit needs: listen addresses, systemd
	// socket, TLS and basic auth file.
	Web web.FlagConfig
	// TelemetryPath is a clean absolute URL path other than the server's own.
	TelemetryPath string

	LogLevel  string
	LogFormat string

	EBPF   EBPF
	Events Events
	API    API

	// ProcFS, SysFS and RootFS are existing directories, absolute and clean.
	ProcFS, SysFS, RootFS string

	// GoMetrics adds the go_* and process_* metrics of the exporter itself.
	GoMetrics bool
	// Harden gives up privileges once everything has started.
	Harden bool
	// Lifecycle lets POST /-/reload apply the configuration file again.
	Lifecycle bool
	// Collectors says for each name of Known.Collectors whether it runs.
	Collectors map[string]bool

	Posture Posture

	// FileRules are the watched files: the defaults, changed by the
	// configuration file. No two rules have the same path.
	FileRules []FileRule

	// File is the configuration file; empty if there is none. FileHash is
	// the start of its SHA-256 in hexadecimal.
	File, FileHash string
}

// Reread returns the configuration with what the file says now: all of it, or
// nil and an error of one line that names file, line and key. c is unchanged.
func (c *Config) Reread(known Known) (*Config, error) {
	next := *c
	if err := next.loadFile(c.File, known); err != nil {
		return nil, err
	}
	return &next, nil
}

// EBPF holds the settings of the runtime half.
type EBPF struct {
	Enabled bool
	// SampleRate keeps one detail event in SampleRate, at the start, and all
	// the time if SampleRateFixed.
	SampleRate      uint32
	SampleRateFixed bool
	// TopCapacity is how many keys each list of the busiest holds, TopN how
	// many of them are exported, at most TopCapacity; 0 exports none.
	// TopWindow is the time that they look back.
	TopCapacity, TopN int
	TopWindow         time.Duration
	// Detailed turns on the stream of detail events. An output does too.
	Detailed bool
	// MaxEventsPerSecond is the volume of detail events to aim at.
	MaxEventsPerSecond int
	// Probes is a subset of Known.Probes, in that order, never empty unless
	// Known.Probes is.
	Probes []string
	// HookPolicy is auto, fentry, kprobe or tracepoint.
	HookPolicy string
}

// Events holds where detail events are written and what is in them.
type Events struct {
	// Stdout or Path is where they are written; neither: nowhere.
	Stdout bool
	Path   string // absolute and clean
	// FileMiB is the size at which the file is rotated, FileBackups how many
	// rotated ones are kept.
	FileMiB, FileBackups int
	// Arguments puts the arguments of executed programs into events.
	Arguments bool
}

// API holds where the local API listens. Both empty: nowhere.
type API struct {
	// Socket is the path of a Unix socket, absolute and clean.
	Socket string
	// TCP is an address, on loopback unless the web configuration has TLS and
	// authentication.
	TCP string
	// Explicit is set if the address was given, not the default.
	Explicit bool
}

// Posture holds the settings of single collectors.
type Posture struct {
	// LegacyNames keeps the fixed names of the earlier exporter.
	LegacyNames bool
	// PortStates is a subset of Known.PortStates, in that order, never empty
	// unless Known.PortStates is.
	PortStates []string
	// ServicesEnabled lists only enabled services, ServicesRunning only those
	// that run.
	ServicesEnabled, ServicesRunning bool
	// CronFullCommand shows the commands of cron with their arguments.
	CronFullCommand bool
	// Waivers is the reason why a failed check is accepted, by an id of
	// Known.Checks.
	Waivers map[string]string
	// Sysctl is the expected value of a kernel parameter by its dotted name;
	// an empty one expects nothing.
	Sysctl map[string]string
	// Intervals are the pauses between two runs of a collector, by name, where
	// they are not its own.
	Intervals map[string]time.Duration
}

// Logger returns the logger that the flags ask for, writing to w.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if err := level.Set(c.LogLevel); err != nil {
		panic("log level was not validated: " + err.Error())
	}
	if err := format.Set(c.LogFormat); err != nil {
		panic("log format was not validated: " + err.Error())
	}
	return promslog.New(&promslog.Config{Level: level, Format: format, Writer: w})
}
