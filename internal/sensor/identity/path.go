// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"path"
	"slices"
	"strings"
)

// idLen is the length of a container id: 256 bits in lower-case hexadecimal.
const idLen = 64

func isID(s string) bool { return len(s) == idLen && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// told is what a cgroup's path tells.
type told struct {
	Identity
	// hosted: the container is one of the host's root, so the runtimes' files
	// of the host may be asked. A container or a user with a cgroup tree of
	// its own can name directories there after anybody's container.
	hosted bool
	// machine is a name that systemd-machined knows: nspawn, or a virtual
	// machine.
	machine string
}

// prefixes are what runtimes put before the id with a dash.
var prefixes = map[string]string{
	"docker": Docker, "cri-containerd": Containerd, "nerdctl": Containerd, "containerd": Containerd,
	"crio": CRIO, "libpod": Podman, "libpod-payload": Podman,
}

// parsePath reads the path of a cgroup, from the root of its hierarchy. The
// shapes are those of cgroupfs and systemd drivers of the runtimes; the last
// container on the way is the innermost.
func parsePath(full string) told {
	out := told{hosted: true}
	out.Path = full
	parts := strings.Split(strings.Trim(full, "/"), "/")
	for i, part := range parts {
		part = strings.TrimPrefix(part, "_") // cg_escape of systemd
		parent, child := "", ""
		if i > 0 {
			parent = parts[i-1]
		}
		if i+1 < len(parts) {
			child = parts[i+1]
		}
		if uid, ok := podUID(part, parent); ok {
			out.PodUID = uid
			continue
		}
		if part == "user.slice" || strings.HasPrefix(part, "user@") {
			out.hosted = false
		}
		if out.ContainerID == "" && out.Unit == "" && isUnit(part) {
			out.Unit = part
		}
		runtime, id := containerOf(part, parent, child, i)
		if id == "" {
			if name, ok := machineOf(part, parent); ok && out.ContainerID == "" {
				out.machine = name
			}
			continue
		}
		if out.ContainerID != "" {
			out.OuterID, out.hosted = out.ContainerID, false
		}
		out.ContainerID, out.Runtime = id, runtime
	}
	return out
}

// isUnit says whether systemd's manager made the directory for a unit that
// has processes; slices only group.
func isUnit(part string) bool {
	switch path.Ext(part) {
	case ".service", ".scope", ".socket", ".mount", ".swap":
		return true
	}
	return false
}

// podUID knows pod<uid> of the cgroupfs driver, kubepods[-class]-pod<uid>.slice
// of the systemd driver, where dashes are underscores, and podman's pods.
func podUID(part, parent string) (string, bool) {
	if parent == "libpod_parent" && isID(part) {
		return part, true
	}
	slice, isSlice := strings.CutSuffix(part, ".slice")
	if isSlice {
		if _, id, ok := strings.Cut(slice, "libpod_pod_"); ok && isID(id) {
			return id, true
		}
		if !strings.HasPrefix(slice, "kube") {
			return "", false
		}
		at := strings.LastIndex(slice, "-pod")
		if at < 0 {
			return "", false
		}
		return kubernetesUID(slice[at+len("-pod"):])
	}
	if uid, ok := strings.CutPrefix(part, "pod"); ok {
		return kubernetesUID(uid)
	}
	return "", false
}

// kubernetesUID takes a UUID, or the hash that a static pod has instead.
func kubernetesUID(s string) (string, bool) {
	s = strings.ReplaceAll(s, "_", "-")
	digits := strings.ReplaceAll(s, "-", "")
	return s, len(digits) == 32 && isHex(digits) && (len(s) == 32 || len(s) == 36)
}

// containerOf returns the id of the container whose topmost directory this
// is, or "".
func containerOf(part, parent, child string, depth int) (runtime, id string) {
	if name, ok := strings.CutPrefix(part, "lxc.payload."); ok {
		return LXC, name
	}
	// Before LXC 4 there was one directory for all.
	if parent == "lxc.payload" || (parent == "lxc" && depth == 1) {
		return LXC, part
	}
	if name, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok && child != "supervisor" {
		return Nspawn, strings.TrimSuffix(name, ".service")
	}
	if name, ok := machineOf(part, parent); ok && child == "payload" {
		return Nspawn, name
	}
	part = strings.TrimSuffix(part, ".scope")
	if isID(part) {
		if parent == Docker {
			return Docker, part
		}
		return "", part
	}
	// slice:prefix:id, where containerd's driver is not the kubelet's.
	if at := strings.LastIndexByte(part, ':'); at >= 0 && isID(part[at+1:]) {
		prefix := part[:at]
		return prefixes[prefix[strings.LastIndexByte(prefix, ':')+1:]], part[at+1:]
	}
	if at := len(part) - idLen - 1; at > 0 && part[at] == '-' && isID(part[at+1:]) {
		prefix := part[:at]
		// conmon is podman's and cri-o's process beside the container.
		if strings.HasSuffix(prefix, "conmon") {
			return "", ""
		}
		return prefixes[prefix], part[at+1:]
	}
	return "", ""
}

// machineOf is the name in machine-NAME.scope of systemd-machined.
func machineOf(part, parent string) (string, bool) {
	name, ok := strings.CutPrefix(part, "machine-")
	if !ok || parent != "machine.slice" {
		return "", false
	}
	name, ok = strings.CutSuffix(name, ".scope")
	return unescapeUnit(name), ok && name != ""
}

// unescapeUnit undoes \xNN, see systemd.unit(5).
func unescapeUnit(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' && isHex(s[i+2:i+4]) {
			b.WriteByte(nibble(s[i+2])<<4 | nibble(s[i+3]))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// parseProcCgroup reads /proc/PID/cgroup (cgroups(7)) and returns the path
// that tells most: a container's, of any hierarchy, or else that of version 2
// or of systemd. Unified is the path of version 2, empty if there is none.
func parseProcCgroup(text string) (best, unified string) {
	rank := 0
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, name, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !strings.HasPrefix(name, "/") {
			continue
		}
		r := 1
		switch controllers {
		case "":
			r, unified = 2, name
		case "name=systemd":
			r = 3
		}
		if name == "/" {
			r = 0
		}
		if t := parsePath(name); t.ContainerID != "" {
			r += 10
		}
		if best == "" || r > rank {
			best, rank = name, r
		}
	}
	return best, unified
}

// pathIn is the path that /proc/PID/cgroup gives in the hierarchy of a
// controller of version 1, or in version 2 if that is empty; empty if there is
// no such.
func pathIn(text, controller string) string {
	for line := range strings.Lines(text) {
		hierarchy, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, name, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(name, "/") || (controllers == "") != (hierarchy == "0") {
			continue
		}
		if slices.Contains(strings.Split(controllers, ","), controller) {
			return name
		}
	}
	return ""
}
