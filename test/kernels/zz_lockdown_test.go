// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"os"
	"testing"

	"security-exporter/internal/testkit"
)

// Lockdown can only be raised, so this test comes last, by its file's name.
// Integrity leaves everything as it is. Confidentiality keeps programs from
// reading the kernel: every probe says that it is denied.
func TestZLockdown(t *testing.T) {
	if !testkit.InMachine() {
		t.Skip("needs a machine of its own")
	}
	raise := func(t *testing.T, level string) {
		if err := os.WriteFile("/sys/kernel/security/lockdown", []byte(level), 0); err != nil {
			t.Skipf("needs a kernel with lockdown: %v", err)
		}
	}
	t.Run("integrity", func(t *testing.T) {
		raise(t, "integrity")
		startExporter(t, nil).allUp(t)
	})
	t.Run("confidentiality", func(t *testing.T) {
		raise(t, "confidentiality")
		for name, labels := range startExporter(t, nil).info(t) {
			t.Logf("%s: %s, %s (%s)", name, labels["state"], labels["reason"], labels["hook"])
			if labels["state"] != "denied" && labels["state"] != "unsupported" {
				t.Errorf("%s: %s, %s (%s), want denied", name, labels["state"], labels["reason"], labels["hook"])
			}
		}
	})
}
