// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"os"
	"slices"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

// Integrity leaves everything as it is. Confidentiality keeps programs from
// reading the kernel: every probe says that it is denied.
func TestLockdown(t *testing.T) {
	level := lockdown(t)
	info := startExporter(t, nil).info(t)
	for name, labels := range info {
		t.Logf("%s: %s, %s (%s)", name, labels["state"], labels["reason"], labels["hook"])
		switch state := labels["state"]; {
		case level == "integrity" && state != "attached",
			level == "confidentiality" && (state != "denied" || labels["reason"] != "no_permission"):
			t.Errorf("%s: %s, %s (%s)", name, state, labels["reason"], labels["hook"])
		}
	}
}

// lockdown is the level with which the machine was started.
func lockdown(t *testing.T) string {
	t.Helper()
	read := func(path string) []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
	for _, word := range read("/proc/cmdline") {
		level, found := strings.CutPrefix(word, "lockdown=")
		if !found || !testkit.InMachine() {
			continue
		}
		if levels := read("/sys/kernel/security/lockdown"); !slices.Contains(levels, "["+level+"]") {
			t.Fatalf("started with %s, but the levels are %v", word, levels)
		}
		return level
	}
	t.Skip("needs a machine of tools/testkernels that is locked down")
	return ""
}
