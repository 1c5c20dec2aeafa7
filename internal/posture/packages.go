// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"time"

	"security-exporter/internal/metric"
	"security-exporter/internal/posture/pkgdb"
)

// Reads the databases of dpkg, rpm, apk and pacman (see package pkgdb), and
// for reboot_required what reboot.go names.
//
// The time of the last patch is that of the last package that was installed
// or upgraded, so a removal does not count: rpm and pacman keep it, dpkg tells
// it in its log or else in the newest list of files. apk keeps none; there it
// is the last change of any kind.

// packagesInterval: the databases are watched, so this is for what no change
// of a file shows.
const packagesInterval = 5 * time.Minute

func packagesCollector() Spec {
	types := []string{string(pkgdb.RPM), string(pkgdb.Dpkg), string(pkgdb.Pacman), string(pkgdb.APK)}
	c := &packages{
		count: metric.NewLegacy("linux_security_package_count", "Installed packages by package manager; unknown has 0 when no known one is there.",
			metric.Closed("package_type", append(types[:4:4], "unknown")...)),
		patch: metric.NewLegacy("linux_security_last_patch_time", "Package manager that keeps the time of the last patch; always 1, last_patch_timestamp_seconds has the time.",
			metric.Closed("package_type", append(types[:4:4], "unknown")...)),
		installed: metric.New(metric.Gauge, "linux_security_packages_installed", "Installed packages by package manager, 0 where it has no database.",
			metric.Closed("package_type", types...)),
		patched: metric.NewState("linux_security_last_patch_timestamp_seconds", "Unix time in seconds when a package was last installed or upgraded (apk: changed); absent when not known.",
			metric.Closed("package_type", types...)),
		reboot: metric.New(metric.Gauge, "linux_security_reboot_required", "Whether the host needs a reboot to run the software that is installed, 1 or 0."),
	}
	return Spec{
		Name:    "packages",
		Help:    "Installed packages, time of the last patch, and whether a reboot is due.",
		Metrics: []*metric.Metric{c.count, c.patch, c.installed, c.patched, c.reboot},
		Watch: []string{
			"/var/lib/dpkg/status",
			"/usr/lib/sysimage/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/Packages.db",
			"/var/lib/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages.db", "/var/lib/rpm/Packages",
			"/lib/apk/db/installed", "/usr/lib/apk/db/installed",
			"/var/lib/pacman/local", rebootFlag,
		},
		Interval: packagesInterval,
		Deadline: time.Minute,
		Collect:  c.collect,
	}
}

type packages struct{ count, patch, installed, patched, reboot *metric.Metric }

func (c *packages) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	databases, err := pkgdb.Read(ctx, in.Rootfs)
	for _, d := range databases {
		kind := string(d.Type)
		out.Add(c.count, float64(d.Count), kind)
		out.Add(c.installed, float64(d.Count), kind)
		if !d.Patched.IsZero() {
			out.Add(c.patch, 1, kind)
			out.Add(c.patched, float64(d.Patched.UnixMilli())/1e3, kind)
		}
	}
	if err == nil {
		if len(databases) == 0 {
			out.Add(c.count, 0, "unknown")
			out.Add(c.patch, 1, "unknown")
		}
		out.Fill([]*metric.Metric{c.installed})
	}
	due, rebootErr := rebootRequired(ctx, in, databases)
	if rebootErr == nil {
		out.Bool(c.reboot, due)
	}
	return Partial(errors.Join(err, rebootErr))
}
