// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// inContainer has /proc as runtimes mount it, and the host at /host.
const inContainer = `mount --rbind / "$1/host" && mount --make-rslave "$1/host" && mount -t proc proc "$1/proc" && exec chroot "$@"`

// moving are series that differ between two runs on the same host, a second
// apart: what the exporters themselves do, and what goes on meanwhile.
var moving = regexp.MustCompile(`^(linux_security_(ports_use_info|listen|scrape_collector_duration|collector_last_success|config_changes|audit_|cron|crontab|service)|security_|promhttp_)`)

// posture are the series of a page that stay, with their values.
func posture(page string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "linux_security_") && !moving.MatchString(line) {
			out[strings.TrimSpace(line)] = true
		}
	}
	return out
}

// TestContainer: from an empty root with the host mounted at /host, posture is
// what it is on the host.
func TestContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a mount namespace")
	}
	root := t.TempDir()
	for _, dir := range []string{"host", "proc"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "security-exporter"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	onHost := start(t)
	waitReady(t, onHost)
	inside := launchCmd(t, exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", inContainer, "sh", root, "/security-exporter",
		"--web.listen-address=127.0.0.1:0", "--api.listen-address=", "--path.procfs=/host/proc", "--path.sysfs=/host/sys", "--path.rootfs=/host"))
	inside.waitListening(t)
	waitReady(t, inside)
	time.Sleep(2 * time.Second) // every collector has run
	want, got := posture(onHost.page(t)), posture(inside.page(t))
	if len(want) < 300 {
		t.Errorf("the host has %d series only", len(want))
	}
	for series := range want {
		if !got[series] {
			t.Errorf("missing inside: %s", series)
		}
	}
	for series := range got {
		if !want[series] {
			t.Errorf("only inside: %s", series)
		}
	}
	inside.stop(t)
	onHost.stop(t)
}
