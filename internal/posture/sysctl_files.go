// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
)

// sysctlDirs are the folders of sysctl.d(5): a file hides those of the same
// name in the folders after it. /lib is /usr/lib on hosts that merged them.
var sysctlDirs = [...]string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// sysctlConf is applied after the folders, as sysctl(8) --system does; on
// hosts where only systemd-sysctl runs, a link in /etc/sysctl.d leads here.
const sysctlConf = "/etc/sysctl.conf"

// sysctlSetting is one line. A glob sets all parameters that match and are
// not named by a line of their own; exclude is a "-name" line, which takes a
// name away from the globs.
type sysctlSetting struct {
	name, value string
	exclude     bool
}

// sysctlFiles lists the files in the order in which they are applied.
func sysctlFiles(ctx context.Context, root *hostfs.Tree) ([]string, error) {
	byName := make(map[string]string)
	var problems []error
	for _, dir := range sysctlDirs {
		files, err := root.Glob(ctx, dir+"/*.conf")
		problems = append(problems, err)
		for _, f := range files {
			if name := path.Base(f); byName[name] == "" {
				byName[name] = f
			}
		}
	}
	var out []string
	for _, name := range sortedKeys(byName) {
		out = append(out, byName[name])
	}
	return append(out, sysctlConf), errors.Join(problems...)
}

// readSysctlFiles returns all lines in order. A file that is missing, or a
// link to /dev/null, which masks those of its name, has none.
func readSysctlFiles(ctx context.Context, root *hostfs.Tree) ([]sysctlSetting, error) {
	files, err := sysctlFiles(ctx, root)
	problems := []error{err}
	var out []sysctlSetting
	for _, f := range files {
		if target, err := root.Readlink(ctx, f); err == nil && target == "/dev/null" {
			continue
		}
		b, err := root.ReadLimit(ctx, f, 1<<20)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err == nil {
			var lines []sysctlSetting
			lines, err = parseSysctlFile(bytes.NewReader(b))
			out = append(out, lines...)
		}
		problems = append(problems, err)
	}
	return out, errors.Join(problems...)
}

// parseSysctlFile reads "name = value" lines. A leading "-" means that a
// failure does not matter; without a value it excludes a name from globs.
func parseSysctlFile(r io.Reader) ([]sysctlSetting, error) {
	var out []sysctlSetting
	lines := configLines(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		line, dash := strings.CutPrefix(line, "-")
		name, value, assigned := strings.Cut(line, "=")
		name = sysctlName(strings.TrimSpace(name))
		if name == "" || !assigned && !dash {
			continue
		}
		out = append(out, sysctlSetting{name, sysctlValue(value), !assigned})
	}
	return out, lines.Err()
}

// configuredSysctl returns what the files set a parameter to: the last line
// that names it, else the last glob that matches it.
func configuredSysctl(settings []sysctlSetting, name string) (value string, ok bool) {
	glob := false
	file, _ := sysctlPath(name)
	for _, s := range slices.Backward(settings) {
		if s.name == name {
			return s.value, !s.exclude
		}
		if glob || s.exclude || !strings.ContainsAny(s.name, "*?[") {
			continue
		}
		if match, err := path.Match(swapSeparators(s.name), file); match && err == nil {
			value, glob = s.value, true
		}
	}
	return value, glob
}
