// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	"security-exporter/internal/bpf/abi"
)

// Severity says how much an access to a watched file matters.
type Severity uint8

// The severities. SeverityNone means that the access is not counted.
const (
	SeverityNone Severity = iota
	SeverityCritical
	SeverityWarning
	SeverityInfo
)

// Severities are the names in the order of the constants, "none" first.
func Severities() []string { return []string{"none", "critical", "warning", "info"} }

// String returns the severity as the label and the configuration file spell it.
func (s Severity) String() string {
	if names := Severities(); int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

func parseSeverity(s string) (Severity, bool) {
	if s == "" {
		return SeverityNone, true
	}
	for i, name := range Severities() {
		if s == name {
			return Severity(i), true
		}
	}
	return SeverityNone, false
}

// FileRule is one line of the list of watched files.
//
// Path is absolute, or begins with "~/", which stands for every home
// directory. It has no empty, "." or ".." component. A "/" at its end means
// every entry one level below that directory, as does a path without it that
// turns out to be a directory. The last component may be a glob of ? and at most one *;
// with "/" at its end it means every entry one level below the directories
// that match. All of it is seen from the root of the host's file system
// (--path.rootfs), and the file need not exist.
type FileRule struct {
	Path string
	// Read and Write are the severities of an open for reading and of a
	// change; at least one of them is not SeverityNone.
	Read, Write Severity
}

// Limits on what a configuration file may ask for.
const (
	// MaxFileRules is the most rules that may be in force together.
	MaxFileRules = 512
	// maxNameBytes and maxPathDepth are what the programs in the kernel
	// compare (NAME_LEN and WATCH_DEPTH in internal/bpf/abi.h); maxPathBytes
	// is PATH_MAX without the final NUL, linux/limits.h.
	maxNameBytes = abi.NameLen - 1
	maxPathDepth = abi.WatchDepth
	maxPathBytes = 4095
)

// DefaultFileRules returns the watched files when no configuration file says
// otherwise. The slice is the caller's.
func DefaultFileRules() []FileRule {
	const (
		none     = SeverityNone
		critical = SeverityCritical
		warning  = SeverityWarning
		info     = SeverityInfo
	)
	return []FileRule{
		// Password hashes: shadow(5), gshadow(5); "-" is the previous version.
		{"/etc/shadow", critical, critical},
		{"/etc/shadow-", critical, critical},
		{"/etc/gshadow", critical, critical},
		{"/etc/gshadow-", critical, critical},

		// Who exists, and who may become root.
		{"/etc/passwd", info, critical},
		{"/etc/group", none, critical},
		{"/etc/sudoers", warning, critical},
		{"/etc/sudoers.d/", warning, critical},
		{"/etc/pam.d/", none, critical},

		// Ways in, and code loaded into every process (ld.so(8)).
		{"/etc/ld.so.preload", none, critical},
		{"~/.ssh/authorized_keys", none, critical},
		{"/etc/ssh/sshd_config", warning, warning},
		{"/etc/ssh/sshd_config.d/", warning, warning},

		// What runs later: cron(8), and the unit path of systemd.unit(5).
		{"/etc/crontab", warning, warning},
		{"/etc/cron.*/", warning, warning},
		{"/var/spool/cron/crontabs/", warning, warning},
		{"/etc/systemd/system/", none, warning},
		{"/run/systemd/system/", none, warning},
		{"/usr/local/lib/systemd/system/", none, warning},
		{"/usr/lib/systemd/system/", none, warning},
		{"/lib/systemd/system/", none, warning},

		// Name resolution and mounts.
		{"/etc/hosts", info, info},
		{"/etc/resolv.conf", info, info},
		{"/etc/fstab", info, info},
	}
}

// ruleKey is what makes two rules the same: a directory may be written with
// or without the slash at its end.
func ruleKey(path string) string { return strings.TrimSuffix(path, "/") }

// checkRulePath says what is wrong with the path of a rule.
func checkRulePath(p string) error {
	body, home := strings.CutPrefix(p, "~/")
	switch {
	case p == "":
		return errors.New("is empty")
	case !home && p[0] != '/':
		return errors.New("must begin with / or, for every home directory, ~/")
	case p == "/":
		return errors.New("must name a file or a directory below /")
	case len(p) > maxPathBytes:
		return fmt.Errorf("is longer than %d bytes", maxPathBytes)
	case strings.ContainsRune(p, 0):
		return errors.New("contains a NUL byte")
	case strings.Contains(p, "//"):
		return errors.New("contains //; write a single /")
	}
	if !home {
		body = p[1:]
	}
	body = strings.TrimSuffix(body, "/")
	if body == "" {
		return nil
	}
	names := strings.Split(body, "/")
	if len(names) > maxPathDepth {
		return fmt.Errorf("is %d components deep; at most %d can be watched", len(names), maxPathDepth)
	}
	for i, name := range names {
		if err := checkRuleName(name, i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

func checkRuleName(name string, last bool) error {
	switch {
	case name == "." || name == "..":
		return fmt.Errorf("contains the component %q; write the path without it", name)
	case len(name) > maxNameBytes:
		return fmt.Errorf("has a component of %d bytes; at most %d can be watched", len(name), maxNameBytes)
	case strings.Contains(name, "["):
		return errors.New("contains [; a glob may use * and ? only")
	case strings.Count(name, "*") > 1:
		return errors.New("has more than one *; a glob may have one")
	case !last && strings.ContainsAny(name, "*?"):
		return fmt.Errorf("has a glob in %q; only the last component may be one", name)
	}
	return nil
}
