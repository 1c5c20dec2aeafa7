// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"slices"

	"security-exporter/internal/metric"
)

// self is what the Runner says about the collectors.
type self struct {
	// files are all that are watched, counted the values of the label file.
	files, counted []string

	success, duration, lastSuccess *metric.Metric
	dropped, changes               *metric.Metric
}

func newSelf(specs []Spec) *self {
	var names []string
	s := &self{}
	for _, spec := range specs {
		names = append(names, spec.Name)
		s.files = append(s.files, spec.Watch...)
	}
	slices.Sort(s.files)
	s.files = slices.Compact(s.files)
	for _, f := range s.files {
		s.counted = append(s.counted, countedAs(f))
	}
	slices.Sort(s.counted)
	s.counted = slices.Compact(s.counted)

	collector := closedIfAny("collector", "Name of the collector.", names)
	s.success = metric.NewState("linux_security_scrape_collector_success",
		"Whether the last run of the collector read all it wanted; a host that has no such thing counts as success. Absent before the first run has ended.",
		collector)
	s.duration = metric.NewState("linux_security_scrape_collector_duration_seconds",
		"Duration of the last run of the collector in seconds. Absent before the first run has ended.",
		collector)
	s.lastSuccess = metric.New(metric.Gauge, "linux_security_collector_last_success_timestamp_seconds",
		"Time of the last successful run of the collector in seconds since 1970, 0 if there was none.",
		collector)
	s.dropped = metric.New(metric.Counter, "linux_security_series_dropped_total",
		"Series left out of snapshots because the collector had reached its cap.",
		collector)
	s.changes = metric.New(metric.Counter, "linux_security_config_changes_total",
		"Changes seen since the start in a file or group of files that a collector depends on, or in one that another distribution has in its place; those within 0.3 seconds count once.",
		closedIfAny("file", "File or group of files.", s.counted))
	return s
}

// countedWith are the watched files whose changes count as those of another:
// one that a distribution has in its place, or a group that it is part of.
var countedWith = map[string]string{
	"/usr/etc/sudoers":                               "/etc/sudoers",
	"/usr/etc/sudoers.d/*":                           "/etc/sudoers.d/*",
	"/usr/etc/ssh/sshd_config":                       "/etc/ssh/sshd_config",
	"/usr/etc/ssh/sshd_config.d/*.conf":              "/etc/ssh/sshd_config.d/*.conf",
	"/etc/sysconfig/sshd":                            "/etc/default/ssh",
	"/usr/etc/login.defs":                            "/etc/login.defs",
	"/etc/login.defs.d/*.defs":                       "/etc/login.defs",
	"/etc/security/limits.conf":                      "/etc/security/*.conf",
	"/usr/local/lib/sysctl.d/*.conf":                 "/etc/sysctl.d/*.conf",
	"/run/sysctl.d/*.conf":                           "/usr/lib/sysctl.d/*.conf",
	"/run/systemd/system/*":                          "/usr/lib/systemd/system/*",
	"/var/spool/cron/crontabs/*":                     "/var/spool/cron/*",
	"/var/spool/cron/tabs/*":                         "/var/spool/cron/*",
	"/usr/lib/apk/db/installed":                      "/lib/apk/db/installed",
	"/var/lib/rpm/Packages":                          "/var/lib/rpm/rpmdb.sqlite",
	"/var/lib/rpm/Packages.db":                       "/var/lib/rpm/rpmdb.sqlite",
	"/usr/lib/sysimage/rpm/Packages.db":              "/var/lib/rpm/rpmdb.sqlite",
	"/usr/lib/sysimage/rpm/rpmdb.sqlite":             "/var/lib/rpm/rpmdb.sqlite",
	"/etc/systemd/system/basic.target.wants/*":       "/etc/systemd/system/*",
	"/etc/systemd/system/multi-user.target.wants/*":  "/etc/systemd/system/*",
	"/etc/systemd/system/network-pre.target.wants/*": "/etc/systemd/system/*",
	"/etc/systemd/system/sysinit.target.wants/*":     "/etc/systemd/system/*",
}

// countedAs is the value of the label file for a watched file.
func countedAs(file string) string { return cmp.Or(countedWith[file], file) }

// closedIfAny is a closed label, or an open one that has no values because all
// collectors are off.
func closedIfAny(name, help string, values []string) metric.Label {
	if len(values) == 0 {
		return metric.Open(name, help)
	}
	return metric.Closed(name, values...)
}

func (s *self) table() []*metric.Metric {
	return []*metric.Metric{s.success, s.duration, s.lastSuccess, s.dropped, s.changes}
}
