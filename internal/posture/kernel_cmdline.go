// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"slices"
	"strings"

	"security-exporter/internal/metric"
)

// cmdlineFlags are the parameters of /proc/cmdline that weaken or strengthen
// the kernel (Documentation/admin-guide/kernel-parameters.txt).
var cmdlineFlags = []string{
	"apparmor=0", "audit=0", "audit=1", "debugfs=off", "enforcing=0", "init_on_alloc=1", "init_on_free=1",
	"lockdown=confidentiality", "lockdown=integrity", "mitigations=off", "module.sig_enforce=1", "nokaslr",
	"nopti", "nosmap", "nosmep", "page_alloc.shuffle=1", "randomize_kstack_offset=on", "selinux=0",
	"slab_nomerge", "systemd.debug-shell", "vsyscall=none",
}

func (c *kernel) addCmdline(ctx context.Context, in *Input, out *metric.Batch) error {
	text, err := in.Procfs.ReadValue(ctx, "/cmdline")
	if err != nil {
		return err
	}
	given := parseCmdline(text)
	for _, flag := range cmdlineFlags {
		key, want, valued := strings.Cut(flag, "=")
		value, ok := given[cmdlineKey(key)]
		if valued {
			ok = ok && cmdlineEqual(value, want)
		} else {
			ok = ok && value != "0"
		}
		if ok {
			out.Add(c.flag, 1, flag)
		}
	}
	return nil
}

// cmdlineEqual compares values; a switch has several words for 0 and 1
// (kstrtobool), and one without a value is on.
func cmdlineEqual(value, want string) bool {
	switch want {
	case "1":
		return slices.Contains([]string{"", "1", "y", "Y", "yes", "on", "true"}, value)
	case "0":
		return slices.Contains([]string{"0", "n", "N", "no", "off", "false"}, value)
	}
	return value == want
}

// cmdlineKey makes one of two spellings: the kernel takes - and _ for equal.
func cmdlineKey(key string) string { return strings.ReplaceAll(key, "-", "_") }

// parseCmdline splits the parameters as the kernel does (lib/cmdline.c):
// double quotes keep blanks together and are dropped, what comes after -- is
// for init, and the last of several with one name counts. Values such as
// those of mitigations that are lists keep their commas.
func parseCmdline(text string) map[string]string {
	given := make(map[string]string)
	quoted := false
	for _, word := range strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n\v\f\r", r)
	}) {
		if word == "--" {
			break
		}
		key, value, _ := strings.Cut(strings.ReplaceAll(word, `"`, ""), "=")
		given[cmdlineKey(key)] = value
	}
	return given
}
