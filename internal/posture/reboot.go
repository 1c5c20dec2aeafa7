// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/posture/pkgdb"
)

// Reads /run/reboot-required, which Debian's package hooks write
// (update-notifier-common, unattended-upgrades), and compares the running
// kernel, /proc/sys/kernel/osrelease, with those that have a modules.dep below
// /lib/modules (depmod(8)). A kernel of another flavour is not an upgrade.

const rebootFlag = "/run/reboot-required"

// rebootRequired is also true on a host of pacman whose running kernel has no
// modules any more: an upgrade removes them there. Elsewhere that says
// nothing, since a hosted kernel may come without any.
func rebootRequired(ctx context.Context, in *Input, databases []pkgdb.Database) (bool, error) {
	_, err := in.Rootfs.Stat(ctx, rebootFlag)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, hostfs.ErrNotExist) {
		return false, err
	}
	installed, err := installedKernels(ctx, in.Rootfs)
	if err != nil || len(installed) == 0 {
		return false, err
	}
	running, err := in.Procfs.ReadValue(ctx, "/sys/kernel/osrelease")
	if err != nil {
		return false, err
	}
	if !slices.Contains(installed, running) {
		return slices.ContainsFunc(databases, func(d pkgdb.Database) bool { return d.Type == pkgdb.Pacman }), nil
	}
	return newerKernel(running, installed), nil
}

// installedKernels are the releases that have modules. A directory without
// modules.dep is what header packages and removed kernels leave.
func installedKernels(ctx context.Context, root *hostfs.Tree) ([]string, error) {
	const dir = "/lib/modules"
	entries, err := root.ReadDir(ctx, dir)
	if errors.Is(err, hostfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		_, err := root.Stat(ctx, dir+"/"+e.Name+"/modules.dep")
		if err == nil {
			out = append(out, e.Name)
		} else if !errors.Is(err, hostfs.ErrNotExist) && e.Type.IsDir() {
			return nil, err
		}
	}
	return out, nil
}

// newerKernel tells whether a release of the same flavour is higher.
func newerKernel(running string, installed []string) bool {
	flavour, parts := splitRelease(running)
	return slices.ContainsFunc(installed, func(other string) bool {
		f, p := splitRelease(other)
		return slices.Equal(f, flavour) && slices.CompareFunc(p, parts, compareParts) > 0
	})
}

// splitRelease takes 6.1.0-18-amd64 apart into its parts in order, and into
// the words among them, which are the flavour. Digits inside a word belong to
// it.
func splitRelease(release string) (flavour, parts []string) {
	for _, f := range strings.FieldsFunc(release, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		word := strings.TrimRightFunc(f, unicode.IsDigit)
		switch {
		case word == "":
			parts = append(parts, f)
		case isCounted(word):
			flavour = append(flavour, word)
			parts = append(parts, word, cmp.Or(f[len(word):], "0"))
		default:
			flavour = append(flavour, f)
			parts = append(parts, f)
		}
	}
	return flavour, parts
}

// isCounted are words whose number counts releases: Arch's arch1, zen1 and
// hardened1, and Fedora's fc41 and Red Hat's el9, under which a host that was
// upgraded to the next major release still runs the old kernel.
func isCounted(word string) bool {
	return slices.Contains([]string{"arch", "zen", "hardened", "fc", "el"}, word)
}

// compareParts compares as package managers do: numbers by value, and a number
// is higher than a word, so that 80.1.el8 comes after 80.el8.
func compareParts(a, b string) int {
	x, y := isNumber(a), isNumber(b)
	if !x || !y {
		return cmp.Compare(toInt(x), toInt(y))
	}
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(len(a)-len(b), strings.Compare(a, b))
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
