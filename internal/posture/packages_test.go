// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPackages(t *testing.T) {
	t.Parallel()
	changed := time.Date(2025, 12, 24, 18, 0, 0, 0, time.UTC)
	golden(t, packagesCollector, prepared(func(t *testing.T, name, rootfs string) {
		must(t, os.Chtimes(rootfs, changed, changed))
		if installed := filepath.Join(rootfs, "lib/apk/db/installed"); name == "alpine" {
			must(t, os.Chtimes(installed, changed, changed))
		}
		if name == "unreadable" {
			must(t, os.Remove(filepath.Join(rootfs, "var/lib/dpkg/status")))
			must(t, os.Mkdir(filepath.Join(rootfs, "var/lib/dpkg/status"), 0o755))
		}
	}))
}

func TestNewerKernel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		running, other string
		want           bool
	}{
		{"6.1.0-18-amd64", "6.1.0-20-amd64", true},
		{"6.1.0-18-amd64", "6.1.0-9-amd64", false},
		{"6.1.0-18-amd64", "6.1.0-20-rt-amd64", false},
		{"6.1.0-18-amd64", "6.1.0-18-amd64", false},
		{"5.15.0-91-generic", "5.15.0-100-generic", true},
		{"5.15.0-91-generic", "5.15.0-100-lowlatency", false},
		{"5.14.0-362.8.1.el9_3.x86_64", "5.14.0-362.18.1.el9_3.x86_64", true},
		{"5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.13.1.el9_4.x86_64", true},
		{"5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.13.1.el9_4.x86_64+debug", false},
		{"4.18.0-80.el8.x86_64", "4.18.0-80.1.2.el8_0.x86_64", true},
		{"4.18.0-80.1.2.el8_0.x86_64", "4.18.0-80.el8.x86_64", false},
		{"6.11.4-301.fc41.x86_64", "6.12.4-200.fc41.x86_64", true},
		{"6.11.4-301.fc40.x86_64", "6.11.4-301.fc41.x86_64", true},
		{"6.4.0-150600.21-default", "6.4.0-150600.23.7-default", true},
		{"6.6.1-arch1-1", "6.6.2-arch1-1", true},
		{"6.6.1-arch1-1", "6.6.1-arch2-1", true},
		{"6.6.1-arch1-1", "6.6.2-1-lts", false},
		{"6.6.7-0-lts", "6.6.8-0-lts", true},
		{"6.1.99999999999999999999-x", "6.1.100000000000000000000-x", true},
	} {
		if got := newerKernel(c.running, []string{c.other}); got != c.want {
			t.Errorf("%s installed, %s running: %v, want %v", c.other, c.running, got, c.want)
		}
	}
}
