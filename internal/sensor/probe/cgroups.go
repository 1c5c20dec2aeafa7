// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
)

// LegacyCgroups is a hierarchy of version 1.
type LegacyCgroups struct {
	// Root is where it is mounted; empty if there is none.
	Root string
	// Controller is one of those in it, as /proc/PID/cgroup calls it.
	Controller string
	// Index is the controller's in the kernel: the constant legacy_controller.
	Index uint32
}

// cgroupRoot finds the root of the v2 hierarchy: on a hybrid host it is one
// level below.
func cgroupRoot(sysfs string) string {
	for _, path := range []string{filepath.Join(sysfs, "fs/cgroup"), filepath.Join(sysfs, "fs/cgroup/unified")} {
		if isCgroupRoot(path, unix.CGROUP2_SUPER_MAGIC) {
			return path
		}
	}
	return ""
}

// isCgroupRoot: the root's inode is 1 (kernfs); in a container's own cgroup
// namespace the mount shows a subtree, and programs there would miss the host.
func isCgroupRoot(path string, magic int64) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(path, &fs) == nil && fs.Type == magic && unix.Stat(path, &st) == nil && st.Ino == 1
}

// legacyCgroups finds the hierarchy of version 1 that tells most of the
// containers. Named ones, without a controller, have no index in the kernel.
func (h *Host) legacyCgroups() LegacyCgroups {
	none := LegacyCgroups{Index: abi.NoID}
	// A process that is always there shows what is mounted.
	text, err := os.ReadFile(filepath.Join(h.ProcFS, "1/cgroup"))
	if err != nil || !h.hasPlainCgroupIDs() {
		return none
	}
	for _, c := range legacyControllers(string(text)) {
		index, known := h.controllerIndex(c.name)
		if !known {
			continue
		}
		for _, name := range []string{c.name, c.together} {
			if root := filepath.Join(h.SysFS, "fs/cgroup", name); isCgroupRoot(root, unix.CGROUP_SUPER_MAGIC) {
				return LegacyCgroups{Root: root, Controller: c.name, Index: index}
			}
		}
	}
	return none
}

// controller is one of version 1, and all that share its hierarchy.
type controller struct{ name, together string }

// byLikelihood are the controllers of version 1: first those that container
// runtimes and systemd put everything in, and switch off last.
var byLikelihood = []string{
	"memory", "pids", "cpu", "cpuacct", "devices", "freezer", "blkio", "cpuset", "net_cls", "perf_event", "hugetlb",
}

// legacyControllers reads /proc/PID/cgroup (cgroups(7)), the best first.
func legacyControllers(text string) []controller {
	var out []controller
	for line := range strings.Lines(text) {
		hierarchy, rest, _ := strings.Cut(line, ":")
		together, _, ok := strings.Cut(rest, ":")
		if !ok || hierarchy == "0" {
			continue
		}
		for name := range strings.SplitSeq(together, ",") {
			if slices.Contains(byLikelihood, name) {
				out = append(out, controller{name, together})
			}
		}
	}
	slices.SortFunc(out, func(a, b controller) int {
		return slices.Index(byLikelihood, a.name) - slices.Index(byLikelihood, b.name)
	})
	return out
}

// controllerIndex is a controller's number, which depends on what the kernel
// was configured with.
func (h *Host) controllerIndex(name string) (uint32, bool) {
	if name == "blkio" {
		name = "io" // its name in version 2 and in the source
	}
	var ids *btf.Enum
	if h.BTF == nil || h.BTF.TypeByName("cgroup_subsys_id", &ids) != nil {
		return 0, false
	}
	at := slices.IndexFunc(ids.Values, func(v btf.EnumValue) bool { return v.Name == name+"_cgrp_id" })
	if at < 0 {
		return 0, false
	}
	return uint32(ids.Values[at].Value), true
}

// hasPlainCgroupIDs: since 5.5 the id of a kernfs node is one number.
func (h *Host) hasPlainCgroupIDs() bool {
	var node *btf.Struct
	if h.BTF == nil || h.BTF.TypeByName("kernfs_node", &node) != nil {
		return false
	}
	at := slices.IndexFunc(node.Members, func(m btf.Member) bool { return m.Name == "id" })
	if at < 0 {
		return false
	}
	_, plain := btf.UnderlyingType(node.Members[at].Type).(*btf.Int)
	return plain
}
