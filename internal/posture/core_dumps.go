// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /proc/sys/kernel/core_pattern (core(5)), /etc/security/limits.conf and
// limits.d (limits.conf(5)), and coredump.conf with its drop-ins
// (coredump.conf(5)).

const (
	limitsConf = "/etc/security/limits.conf"
	// vendorLimitsConf counts where there is none in /etc.
	vendorLimitsConf = "/usr/etc/security/limits.conf"
)

// coredumpDirs hold coredump.conf and coredump.conf.d, the first wins.
var coredumpDirs = []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"}

func coreDumpsCollector() Spec {
	pipe := metric.NewState("linux_security_core_pattern_pipe",
		"Whether the kernel gives core dumps to a program, which limits do not hold back.")
	limited := metric.NewState("linux_security_core_limit_zero",
		"Whether the hard limit of pam_limits for core dumps is 0 for all users but root.")
	stored := metric.NewState("linux_security_coredump_stored",
		"Whether systemd-coredump keeps core dumps; absent if it does not get them.")
	return Spec{
		Name:    "core_dumps",
		Help:    "Where core dumps go, which may hold secrets.",
		Metrics: []*metric.Metric{pipe, limited, stored},
		Watch: []string{
			limitsConf, "/etc/security/limits.d/*.conf", "/etc/systemd/coredump.conf", "/etc/systemd/coredump.conf.d/*.conf",
		},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			pattern, err := in.Procfs.ReadValue(ctx, "/sys/kernel/core_pattern")
			if err != nil {
				return err
			}
			out.Bool(pipe, strings.HasPrefix(pattern, "|"))
			zero, err := readCoreLimit(ctx, in.Rootfs)
			problems := []error{err}
			if err == nil {
				out.Bool(limited, zero)
			}
			if strings.HasPrefix(pattern, "|") && strings.Contains(pattern, "systemd-coredump") {
				storage, err := readSystemdStorage(ctx, in.Rootfs, "coredump.conf", "Coredump")
				problems = append(problems, err)
				if err == nil {
					out.Bool(stored, !strings.EqualFold(storage, "none"))
				}
			}
			return Partial(errors.Join(problems...))
		},
	}
}

// readCoreLimit reads limits.conf, then limits.d in the order of the names,
// as pam_limits(8) does.
func readCoreLimit(ctx context.Context, root *hostfs.Tree) (zero bool, err error) {
	files, err := root.Glob(ctx, "/etc/security/limits.d/*.conf")
	if err != nil {
		return false, err
	}
	main := limitsConf
	if _, err := root.Stat(ctx, main); errors.Is(err, hostfs.ErrNotExist) {
		main = vendorLimitsConf
	}
	for _, file := range append([]string{main}, files...) {
		b, err := root.ReadFile(ctx, file)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if zero, err = parseCoreLimit(bytes.NewReader(b), zero); err != nil {
			return false, err
		}
	}
	return zero, nil
}

// parseCoreLimit looks for the hard limit of core for all users; the last
// line counts. "-" sets the hard limit too.
func parseCoreLimit(r io.Reader, zero bool) (bool, error) {
	lines := configLines(r)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 4 && f[0] == "*" && (f[1] == "hard" || f[1] == "-") && strings.EqualFold(f[2], "core") {
			zero = f[3] == "0"
		}
	}
	return zero, lines.Err()
}

// readSystemdStorage returns Storage= of a section of coredump.conf or
// journald.conf, "" if it is not set. Drop-ins come after the file, sorted by name over all directories; of two
// with one name the one in the first directory counts.
func readSystemdStorage(ctx context.Context, root *hostfs.Tree, file, section string) (string, error) {
	files := make([]string, 0, 1)
	dropIns := make(map[string]string)
	for _, dir := range coredumpDirs {
		main := dir + "/" + file
		if _, err := root.Stat(ctx, main); err == nil && len(files) == 0 {
			files = append(files, main)
		} else if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			return "", err
		}
		list, err := root.Glob(ctx, main+".d/*.conf")
		if err != nil {
			return "", err
		}
		for _, file := range list {
			name := file[strings.LastIndexByte(file, '/')+1:]
			if _, known := dropIns[name]; !known {
				dropIns[name] = file
			}
		}
	}
	for _, name := range sortedKeys(dropIns) {
		files = append(files, dropIns[name])
	}
	storage := ""
	for _, file := range files {
		b, err := root.ReadFile(ctx, file)
		if target, linkErr := root.Readlink(ctx, file); linkErr == nil && target == "/dev/null" {
			continue // how a drop-in is switched off
		}
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if storage, err = parseSystemdStorage(bytes.NewReader(b), section, storage); err != nil {
			return "", err
		}
	}
	return storage, nil
}

// parseSystemdStorage reads Storage= of a section.
func parseSystemdStorage(r io.Reader, in, storage string) (string, error) {
	section := ""
	lines := configLines(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && section == "["+in+"]" && strings.TrimSpace(key) == "Storage" {
			storage = strings.TrimSpace(value)
		}
	}
	return storage, lines.Err()
}
