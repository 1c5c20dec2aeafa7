// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/testkit"
)

// proc is a /proc with the cgroups of some processes.
func proc(t testing.TB, cgroups map[int]string) string {
	t.Helper()
	dir := t.TempDir()
	for pid, text := range cgroups {
		place := filepath.Join(dir, fmt.Sprint(pid))
		if err := os.MkdirAll(place, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(place, "cgroup"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func onHost(procfs, rootfs string) *hostfs.Root {
	return hostfs.New(hostfs.Paths{Procfs: procfs, Rootfs: rootfs})
}

// Version 1, alone or beside version 2, without an id: the process says where
// it is.
func TestLegacy(t *testing.T) {
	t.Parallel()
	const before = "4:memory:/system.slice/docker.service\n1:name=systemd:/system.slice/docker.service\n0::/\n"
	after := "4:memory:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n0::/\n"
	procfs := proc(t, map[int]string{
		1: "4:memory:/\n1:name=systemd:/init.scope\n0::/init.scope\n", 7: before, 8: after, 9: "4:memory:/\n0::/\n",
	})
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker")}, "")
	e := func(kind uint8, tgid uint32, at time.Duration) *event.Event {
		return &event.Event{Kind: event.Kind(kind), TGID: tgid, CgroupID: 1, Monotonic: at}
	}
	exec, file := uint8(abi.EventExec), uint8(abi.EventFile)
	move := func() {
		if err := os.WriteFile(filepath.Join(procfs, "7", "cgroup"), []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name        string
		do          func()
		e           *event.Event
		label, unit string
	}{
		{"in a container", nil, e(file, 8, 0), "web", ""},
		{"the runtime before it moves", nil, e(exec, 7, 0), "", "docker.service"},
		{"moved, without an event", move, e(file, 7, 1), "", "docker.service"},
		{"the program of the container", nil, e(exec, 7, 2), "web", ""},
		{"remembered", func() { _ = os.RemoveAll(filepath.Join(procfs, "7")) }, e(file, 7, 3), "web", ""},
		{"not for ever", nil, e(file, 7, settle+3), "", ""},
		{"in the root", nil, e(file, 9, 0), "", ""},
		{"nobody", nil, e(file, 0, 0), "", ""},
		{"gone", nil, e(exec, 100, 0), "", ""},
	} {
		if c.do != nil {
			c.do()
		}
		got := r.Lookup(c.e)
		if got.Label() != c.label || got.Unit != c.unit {
			t.Errorf("%s: label %q, unit %q, want %q and %q", c.name, got.Label(), got.Unit, c.label, c.unit)
		}
	}
	r.sweep(t.Context())
	r.sweep(t.Context())
	// The cgroup 1, of which there is no tree to find it in, goes as well.
	if n := r.Stats().Entries; n != 1 {
		t.Errorf("%d entries after two sweeps, want the one process seen last", n)
	}
}

// A process that has moved since its event says nothing about then: runc is
// executed on the host and goes into the container before the next exec.
func TestMovedSince(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	procfs := proc(t, map[int]string{
		1: "1:name=systemd:/\n0::/\n",
		7: "1:name=systemd:/docker/" + idA + "\n0::/docker/" + idA + "\n",
		8: "1:name=systemd:/docker/" + idA + "\n0::/\n",
	})
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker"), CgroupRoot: host().CgroupRoot}, "")
	for tgid, want := range map[int]string{7: "", 8: "web"} {
		if got := r.Lookup(exit(1, tgid)).Label(); got != want {
			t.Errorf("process %d: label %q, want %q", tgid, got, want)
		}
	}
}
