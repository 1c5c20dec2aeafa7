// SPDX-License-Identifier: Apache-2.0

// Package systemd holds the unit, and the tests that keep it in step with the
// program.
package systemd

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/config"
	"security-exporter/internal/harden"
	"security-exporter/internal/registry"
	"security-exporter/internal/testkit"
)

const unit = "security-exporter.service"

// settings are the values of a key, in order.
func settings(t *testing.T, key string) []string {
	t.Helper()
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			out = append(out, value)
		}
	}
	return out
}

// TestExposure has systemd judge the unit; 30 is 3.0 of 10.
func TestExposure(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		testkit.Missing(t, "systemd-analyze (Debian's package systemd) is missing")
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Errorf("the exposure of the unit is above 3.0: %v\n%s", err, out)
	}
}

// TestCapabilities: the unit grants what the program keeps once started, and
// nothing more, since it needs nothing more at the start. It does not grant
// CAP_SYS_ADMIN, which one kernel parameter is not worth.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	names := map[int]string{
		unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN",
		unix.CAP_AUDIT_CONTROL: "CAP_AUDIT_CONTROL", unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON",
	}
	collectors := map[string]bool{}
	for _, name := range registry.Known().Collectors {
		collectors[name] = true
	}
	want := map[string]bool{}
	for _, c := range (harden.Needs{EBPF: true, Collectors: collectors}).Capabilities(unix.CAP_LAST_CAP) {
		if c != unix.CAP_SYS_ADMIN {
			want[names[c]] = true
		}
	}
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		got := strings.Fields(strings.Join(settings(t, key), " "))
		for _, name := range got {
			if !want[name] {
				t.Errorf("%s grants %s, which the program does not keep", key, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

// TestFlags: the program takes the flags of the unit.
func TestFlags(t *testing.T) {
	t.Parallel()
	start := settings(t, "ExecStart")
	if len(start) != 1 {
		t.Fatalf("ExecStart: %v", start)
	}
	args := strings.Fields(strings.ReplaceAll(start[0], "$SECURITY_EXPORTER_FLAGS", ""))[1:]
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "/etc/security-exporter/config.yml", "../../docs/config.example.yml")
	}
	c, err := config.Parse(args, registry.Known(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !c.EBPF.Enabled || !c.Harden {
		t.Error("the unit does not switch eBPF and hardening on")
	}
}

// TestReload: what is checked before the signal is what was started.
func TestReload(t *testing.T) {
	t.Parallel()
	program, flags, _ := strings.Cut(settings(t, "ExecStart")[0], " ")
	want := []string{program + " check-config " + flags, "+/bin/kill -HUP $MAINPID"}
	if got := settings(t, "ExecReload"); !slices.Equal(got, want) {
		t.Errorf("ExecReload is %q, want %q", got, want)
	}
}
