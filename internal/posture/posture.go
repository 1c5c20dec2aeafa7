// SPDX-License-Identifier: Apache-2.0

// Package posture turns how a host is set up into metrics. Each collector is
// one file: it declares its metrics once, names the files it depends on and
// has a function that reads them. all.go lists the collectors; the Runner
// runs each in the background, at its own interval and when one of its files
// changes, and serves the last snapshot to any number of scrapes.
//
// What a run may end as, and what a scrape shows then:
//
//	Collect returns       success  series of the collector
//	nil                   1        those of this run
//	ErrNotApplicable      1        none: the host has no such thing
//	Partial(err)          0        those of this run; err says what is missing
//	any other error       0        those of the last complete run, until stale
//	nothing in time       0        the same; not started again before it returns
//	a panic               0        the same
//
// A snapshot is stale three intervals and one deadline after it was taken.
// hostfs.ErrNotExist, returned as such, is ErrNotApplicable: a missing file
// means that the host has no such thing, one that cannot be read is an error.
package posture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// ErrNotApplicable ends a run on a host that has nothing for this collector.
var ErrNotApplicable = errors.New("not applicable to this host")

// What a Spec has when it says nothing.
const (
	DefaultInterval  = time.Minute
	DefaultDeadline  = 10 * time.Second
	DefaultMaxSeries = 500
)

// Spec is one collector.
type Spec struct {
	// Name is the flag --collector.NAME and the value of the label collector:
	// lower case letters, digits and underscores.
	Name string
	// Help is one sentence for --help and the documentation, ending in a dot.
	Help string
	// Metrics is every metric that Collect may add. No other collector may
	// declare one of them.
	Metrics []*metric.Metric
	// Watch names the files of the root file system whose change runs the
	// collector again: "/etc/passwd", "/etc/ssh/sshd_config.d/*.conf" (a
	// pattern in the last component only) or "/etc/cron.d/*" (all but dot
	// files). They need not exist. Directories that change all the time, such
	// as /var/log, do not belong here. Each is a value of the label file, but
	// for those in countedWith.
	Watch []string
	// Interval is the pause between two runs, Deadline the longest run, and
	// MaxSeries the cap of a snapshot. 0 is the default.
	Interval, Deadline time.Duration
	MaxSeries          int
	// Judges is set if the result depends on what the configuration file waives
	// or expects, so that the collector runs again when that changes.
	Judges bool
	// Off collectors run only when they are asked for by name.
	Off bool
	// Collect reads the host and adds series. It is never called twice at the
	// same time, so what its closure keeps between runs needs no lock.
	Collect func(ctx context.Context, in *Input, out *metric.Batch) error
}

// Input is what a run gets: the host (in.Rootfs, in.Procfs, in.Sysfs) and
// what the user chose.
type Input struct {
	*hostfs.Root
	Settings Settings
	// Changed: a file that the collector watches has changed since the run
	// before, so nothing that was remembered of files holds.
	Changed bool
	// Log is for what a metric cannot say. The Runner logs returned errors.
	Log *slog.Logger
	// Now is the clock, so that ages can be tested.
	Now func() time.Time
}

// Settings are the options of single collectors.
type Settings struct {
	// PortStates are the TCP states to list, as ss(8) spells them with
	// underscores: LISTEN, ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1,
	// FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING. Empty means
	// LISTEN.
	PortStates []string
	// ServicesEnabled lists only enabled units, ServicesRunning only running.
	ServicesEnabled, ServicesRunning bool
	// CronFullCommand shows commands with their arguments.
	CronFullCommand bool
	// Sysctl is what is expected of a kernel parameter (dotted name to value)
	// in place of the built-in expectation; an empty value expects nothing.
	Sysctl map[string]string
	// Waivers is the reason why a failed check is accepted, by check id.
	Waivers map[string]string
}

// Options configures a Runner.
type Options struct {
	// Root is the host to read; nil is the one we run on.
	Root *hostfs.Root
	// Log receives a line when a collector starts to fail, fails otherwise or
	// recovers; nil discards.
	Log *slog.Logger
	// Enabled switches collectors on or off by name; the others have their
	// default.
	Enabled map[string]bool
	// LegacyNames keeps the fixed names of the earlier exporter.
	LegacyNames bool
	// FirstScrape is how long after New a scrape waits for the first run of
	// every collector, so that it has all series; 0 is not at all.
	FirstScrape time.Duration
	// Intervals replace those of the collectors, by name.
	Intervals map[string]time.Duration
	Settings  Settings
}

// Partial marks an error that cost only a part of the series: what Collect
// added is served, and success is 0. nil stays nil.
func Partial(err error) error {
	if err == nil {
		return nil
	}
	return &partialError{err}
}

type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

// Info describes a collector for flags and documentation.
type Info struct {
	Name, Help string
	// Default is whether it runs without being asked for.
	Default  bool
	Interval time.Duration
	Watch    []string
	Metrics  []*metric.Metric
}

// List describes every collector, in the order of all.go.
func List() []Info {
	var out []Info
	for _, s := range collectors() {
		s.defaults()
		out = append(out, Info{s.Name, s.Help, !s.Off, s.Interval, s.Watch, s.Metrics})
	}
	return out
}

// Names lists the collectors in the order of all.go.
func Names() []string {
	var out []string
	for _, s := range collectors() {
		out = append(out, s.Name)
	}
	return out
}

// Metrics is every metric of the package: those of the collectors and those
// of the Runner.
func Metrics() []*metric.Metric {
	specs := collectors()
	var out []*metric.Metric
	for _, s := range specs {
		out = append(out, s.Metrics...)
	}
	return append(out, newSelf(specs).table()...)
}

func (s *Spec) defaults() {
	if s.Interval == 0 {
		s.Interval = DefaultInterval
	}
	if s.Deadline == 0 {
		s.Deadline = DefaultDeadline
	}
	if s.MaxSeries == 0 {
		s.MaxSeries = DefaultMaxSeries
	}
}
