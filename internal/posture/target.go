// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"security-exporter/internal/hostfs"
)

// defaultTarget is what the host boots into: systemd.unit= or a runlevel on
// the kernel command line (kernel-command-line(7)), else default.target of
// systemd, else the runlevel in /etc/inittab. kind is systemd, init or unknown.
func defaultTarget(ctx context.Context, in *Input, tree *unitTree) (target, kind string, err error) {
	if len(tree.dirs) == 0 {
		return initTarget(ctx, in.Rootfs)
	}
	cmdline, err := in.Procfs.ReadValue(ctx, "/cmdline")
	if errors.Is(err, hostfs.ErrNotExist) {
		err = nil
	}
	if t := cmdlineTarget(cmdline); t != "" {
		return t, "systemd", err
	}
	u, errUnit := tree.load(ctx, "default.target")
	switch {
	case errors.Is(errUnit, hostfs.ErrNotExist):
		return "unknown", "unknown", err
	case errUnit != nil:
		return "unknown", "systemd", errors.Join(err, errUnit)
	}
	return u.name, "systemd", err
}

// cmdlineTarget is the unit that the kernel command line asks for; the last
// word wins. Words for the initrd and those after "--" do not count.
func cmdlineTarget(cmdline string) string {
	target := ""
	for word := range strings.FieldsSeq(cmdline) {
		if word == "--" {
			break
		}
		if unit, ok := strings.CutPrefix(word, "systemd.unit="); ok {
			if _, valid := parseUnitName(unit); valid {
				target = unit
			}
			continue
		}
		switch word {
		case "emergency", "-b":
			target = "emergency.target"
		case "rescue", "single", "s", "S", "1":
			target = "rescue.target"
		case "2", "3", "4":
			target = "multi-user.target"
		case "5":
			target = "graphical.target"
		}
	}
	return target
}

func initTarget(ctx context.Context, root *hostfs.Tree) (target, kind string, err error) {
	b, err := root.ReadLimit(ctx, "/etc/inittab", hostfs.ValueLimit)
	if err != nil {
		return "unknown", "unknown", unlessMissing(err)
	}
	level, err := parseInittab(bytes.NewReader(b))
	if level == "" {
		return "unknown", "unknown", err
	}
	return level, "init", err
}

// parseInittab returns the runlevel of inittab(5): the second field of
// id:LEVEL:initdefault: or, where busybox starts OpenRC, the last argument of
// openrc.
func parseInittab(r io.Reader) (string, error) {
	level := ""
	lines := configLines(r)
	for lines.Scan() {
		f := strings.SplitN(strings.TrimSpace(lines.Text()), ":", 4)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") {
			continue
		}
		words := strings.Fields(f[3])
		switch {
		case f[2] == "initdefault":
			level = f[1]
		case f[2] == "wait" && len(words) == 2 && strings.HasSuffix(words[0], "/openrc"):
			level = words[1]
		}
	}
	return level, lines.Err()
}
