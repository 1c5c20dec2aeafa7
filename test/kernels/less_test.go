// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// capabilities are those of the unit, and what it needs before 5.11.
var capabilities = []uintptr{
	unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH,
	unix.CAP_AUDIT_CONTROL, unix.CAP_SYS_RESOURCE,
}

// A user with the unit's capabilities and with none. What is missing then is
// said, and the rest is served. Debian's kernels keep perf events to
// CAP_SYS_ADMIN, unless they are told not to; trampolines do without them.
func TestCapabilities(t *testing.T) {
	as := func(caps []uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}, AmbientCaps: caps}
	}
	const paranoid = "/proc/sys/kernel/perf_event_paranoid"
	restrict := func(t *testing.T, level string) {
		if !testkit.InMachine() {
			t.Skip("needs a machine of its own")
		}
		if err := os.WriteFile(paranoid, []byte(level), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("the unit's", func(t *testing.T) {
		restrict(t, "2")
		startExporter(t, as(capabilities)).allUp(t)
	})
	t.Run("the unit's, without perf events", func(t *testing.T) {
		restrict(t, "3")
		e := startExporter(t, as(capabilities))
		info, denied := e.info(t), false
		trampolines := strings.HasPrefix(info["file"]["hook"], "fexit/")
		for name, labels := range info {
			t.Logf("%s: %s, %s (%s)", name, labels["state"], labels["reason"], labels["hook"])
			if labels["state"] != "attached" && (labels["state"] != "denied" || trampolines) {
				t.Errorf("%s: %s, %s", name, labels["state"], labels["reason"])
			}
			denied = denied || labels["state"] == "denied"
		}
		if e.stop(t); denied && !strings.Contains(e.output.String(), "perf_event_paranoid is 3") {
			t.Errorf("the log does not say why: %s", e.output.String())
		}
	})
	t.Run("none", func(t *testing.T) {
		e := startExporter(t, as(nil))
		for name, labels := range e.info(t) {
			if labels["state"] == "attached" || labels["state"] == "error" || labels["reason"] == "none" {
				t.Errorf("%s: %s, %s (%s)", name, labels["state"], labels["reason"], labels["hook"])
			}
		}
	})
}

// elsewhere runs a test again in a mount namespace of its own, after f.
func elsewhere(t *testing.T, f func() error) bool {
	t.Helper()
	if !testkit.InMachine() {
		t.Skip("needs a machine of tools/testkernels, which is all its own")
	}
	const variable = "SECURITY_EXPORTER_TEST_ELSEWHERE"
	if os.Getenv(variable) == t.Name() {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.Command(self, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	again.Env = append(os.Environ(), variable+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := again.CombinedOutput(); err != nil {
		// not as a result of its own for who reads this one's
		t.Errorf("%v: %s", err, strings.ReplaceAll(string(out), "---", "--"))
	}
	return false
}

// Without BTF nothing attaches, and the page says why.
func TestNoBTF(t *testing.T) {
	if !elsewhere(t, func() error { return unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, "") }) {
		return
	}
	for name, labels := range startExporter(t, nil).info(t) {
		if labels["state"] != "unsupported" || labels["reason"] != "no_btf" {
			t.Errorf("%s: %s, %s", name, labels["state"], labels["reason"])
		}
	}
}

// The v2 hierarchy beside v1 controllers is found, and where there is none
// only what needs it is missing.
func TestCgroups(t *testing.T) {
	const only = "--ebpf.probes=network" // no other has hooks on cgroups
	hide := func() error { return unix.Mount("none", "/sys/fs/cgroup", "tmpfs", 0, "") }
	t.Run("hybrid", func(t *testing.T) {
		if !elsewhere(t, func() error {
			if err := hide(); err != nil {
				return err
			}
			if err := os.Mkdir("/sys/fs/cgroup/unified", 0o755); err != nil {
				return err
			}
			return unix.Mount("cgroup2", "/sys/fs/cgroup/unified", "cgroup2", 0, "")
		}) {
			return
		}
		// the hooks on cgroups are used only without better ones
		startExporter(t, nil, only).allUp(t, "network")
		e := startExporter(t, nil, only, "--ebpf.hook-policy=tracepoint")
		if testkit.Inspect(t).TracepointParams("sock_send_length") > 0 {
			e.allUp(t, "network")
		} else if info := e.info(t)["network"]; info["state"] != "unsupported" || info["reason"] == "no_cgroup2" {
			t.Errorf("network: %v", info) // that tracepoint is of 6.3
		}
	})
	t.Run("v1", func(t *testing.T) {
		if !elsewhere(t, hide) {
			return
		}
		startExporter(t, nil, only).allUp(t, "network")
		info := startExporter(t, nil, only, "--ebpf.hook-policy=tracepoint").info(t)["network"]
		if info["state"] != "unsupported" || info["reason"] != "no_cgroup2" || info["hook"] == "" {
			t.Errorf("network: %v", info)
		}
	})
}
