// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// worker makes the real calls.
var worker = testkit.Worker{"rings": makeRings, "modules": failModules, "load": loadModules}

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]testkit.Worker{"kernel": worker})
}

// makeRings makes n io_uring instances, and fails to make as many.
func makeRings(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n {
		var params [120]byte // struct io_uring_params
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 2, uintptr(unsafe.Pointer(&params)), 0)
		if errno != 0 {
			return "", fmt.Errorf("io_uring_setup: %w", errno)
		}
		if err := unix.Close(int(fd)); err != nil {
			return "", err
		}
		if _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, uintptr(unsafe.Pointer(&params)), 0); errno == 0 {
			return "", fmt.Errorf("io_uring_setup made an empty ring")
		}
	}
	return "", nil
}

// failModules makes each of the three calls fail n times.
func failModules(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	file, err := os.Open("/bin/true")
	if err != nil {
		return "", err
	}
	defer file.Close()
	for range n {
		if unix.InitModule([]byte("no module"), "") == nil ||
			unix.FinitModule(int(file.Fd()), "", 0) == nil ||
			unix.DeleteModule("no_such_module", unix.O_NONBLOCK) == nil {
			return "", fmt.Errorf("a call on a module that is none has succeeded")
		}
	}
	return "", nil
}

func start(t *testing.T, spec *probe.Spec) (*probe.Probe, *testkit.Cgroup) {
	t.Helper()
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	shared := probe.NewShared()
	t.Cleanup(func() { _ = shared.Close() })
	return testkit.StartShared(t, host, shared, spec, cgroup.Only()), cgroup
}

// eachRung runs a test with each rung for modules that this kernel takes.
func eachRung(t *testing.T, test func(*testing.T, *probe.Probe, *testkit.Cgroup)) {
	if !hasModules() {
		t.Skip("needs a kernel with module support")
	}
	for rung, r := range moduleRungs() {
		t.Run(r.Hook, func(t *testing.T) {
			spec := New()
			spec.Parts[0].Rungs = spec.Parts[0].Rungs[rung : rung+1]
			p, cgroup := start(t, spec)
			if s := p.Status(); s.State == probe.Unsupported || s.State == probe.Denied {
				t.Skipf("needs a kernel with such hooks: %+v", s)
			}
			if s := p.Status(); s.Hook != r.Hook {
				t.Fatalf("status %+v", s)
			}
			test(t, p, cgroup)
		})
	}
}

func hasModules() bool {
	_, err := os.Stat("/proc/modules")
	return err == nil
}

// A kernel without modules is no failure of the probe.
func TestStatus(t *testing.T) {
	p, _ := start(t, New())
	want := probe.Status{State: probe.NotApplicable, Reason: probe.ReasonNoModuleSupport}
	if hasModules() {
		want = probe.Status{Hook: "tp_btf/module_load", State: probe.Attached, Reason: probe.ReasonNone}
	}
	if got := p.Status(); got != want {
		t.Errorf("status %+v, want %+v", got, want)
	}
}

func TestRings(t *testing.T) {
	p, cgroup := start(t, New())
	w := cgroup.Start(t, "kernel")
	watch := testkit.NewWatch(t, p, "io_uring_setup_total")
	if _, err := w.Try("rings", "600"); err != nil {
		t.Skipf("needs io_uring: %v", err)
	}
	watch.Expect(t, map[string]map[int]int64{"io_uring_setup_total": {0: 600}})
}

func TestModuleFailures(t *testing.T) {
	eachRung(t, func(t *testing.T, p *probe.Probe, cgroup *testkit.Cgroup) {
		w := cgroup.Start(t, "kernel")
		watch := testkit.NewWatch(t, p, "kernel_module_total", "kernel_module_failures_total")
		w.Do("modules", "600")
		failures := map[int]int64{}
		for action := range abi.ModuleActions {
			failures[action] = 600
		}
		watch.Expect(t, map[string]map[int]int64{"kernel_module_failures_total": failures})
	})
}

// What sees the calls themselves sees those of 32-bit programs too.
func TestCompat(t *testing.T) {
	eachRung(t, func(t *testing.T, p *probe.Probe, _ *testkit.Cgroup) {
		if err := p.AttachCompat(); err != nil {
			t.Error(err)
		}
		got := p.Runs("on_compat_sys_exit") || p.Runs("on_classic_compat_sys_exit")
		if got == p.Runs("on_fexit_init_module") {
			t.Errorf("program for 32-bit calls attached: %v", got)
		}
	})
}
