// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"security-exporter/internal/bpf/abi"
)

func TestLegacyControllers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []controller
	}{
		{"version 2", "0::/init.scope\n", nil},
		{"named alone", "1:name=systemd:/\n0::/\n", nil},
		{"memory first", "9:name=systemd:/\n8:pids:/\n4:memory:/x\n0::/\n", []controller{{"memory", "memory"}, {"pids", "pids"}}},
		{"one hierarchy for several", "2:net_cls,cpuacct,cpu:/\n", []controller{{"cpu", "net_cls,cpuacct,cpu"}, {"cpuacct", "net_cls,cpuacct,cpu"}, {"net_cls", "net_cls,cpuacct,cpu"}}},
		{"a controller nobody uses", "3:rdma:/\n", nil},
		{"all in version 2", "0:memory:/\n", nil},
		{"broken", "\n3\n:memory\n3:memory\n", nil},
	} {
		if got := legacyControllers(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzLegacyControllers(f *testing.F) {
	f.Add("2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range legacyControllers(text) {
			if !slices.Contains(strings.Split(c.together, ","), c.name) || !strings.Contains(text, c.together) {
				t.Errorf("%+v", c)
			}
		}
	})
}

// kernel makes the types of a kernel: its controllers, and what the id of a
// cgroup is.
func kernel(t *testing.T, id btf.Type, controllers ...string) *Host {
	t.Helper()
	ids := &btf.Enum{Name: "cgroup_subsys_id", Size: 4}
	for i, name := range controllers {
		ids.Values = append(ids.Values, btf.EnumValue{Name: name + "_cgrp_id", Value: uint64(i)})
	}
	node := &btf.Struct{Name: "kernfs_node", Size: 8, Members: []btf.Member{{Name: "id", Type: id}}}
	h := hostWith(t, ids, node)
	h.ProcFS, h.SysFS = t.TempDir(), t.TempDir()
	return h
}

var u64 = &btf.Typedef{Name: "u64", Type: &btf.Int{Name: "long", Size: 8}}

func TestControllerIndex(t *testing.T) {
	t.Parallel()
	h := kernel(t, u64, "cpuset", "io", "memory")
	for name, want := range map[string]uint32{"cpuset": 0, "blkio": 1, "memory": 2, "pids": abi.NoID} {
		got, known := h.controllerIndex(name)
		if known != (want != abi.NoID) || (known && got != want) {
			t.Errorf("%s: %d, %t", name, got, known)
		}
	}
	if _, known := (&Host{}).controllerIndex("memory"); known {
		t.Error("an index without types")
	}
}

// Before 5.5 the id was a union.
func TestPlainCgroupIDs(t *testing.T) {
	t.Parallel()
	for want, id := range map[bool]btf.Type{true: u64, false: &btf.Union{Name: "kernfs_node_id", Size: 8}} {
		if got := kernel(t, id, "memory").hasPlainCgroupIDs(); got != want {
			t.Errorf("%v: %t", id, got)
		}
	}
}

// A controller whose hierarchy is not mounted where it is looked for has no
// index, so that the programs leave it out.
func TestNoLegacyCgroups(t *testing.T) {
	t.Parallel()
	if got := kernel(t, u64, "memory").legacyCgroups(); got != (LegacyCgroups{Index: abi.NoID}) {
		t.Errorf("%+v", got)
	}
}
