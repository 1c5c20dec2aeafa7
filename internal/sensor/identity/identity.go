// SPDX-License-Identifier: Apache-2.0

// Package identity says whose an event is. Which container, pod and systemd
// unit a cgroup is: in reading order the Identity, what a cgroup's path tells
// (path.go), what the files of container runtimes add (names.go, tasks.go), and
// the Resolver that finds and caches it. And which program a process runs, where
// the kernel's programs cannot tell (executables.go).
package identity

import (
	"strings"

	"security-exporter/internal/metric"
)

// The container runtimes that are told apart.
const (
	Docker     = "docker"
	Containerd = "containerd"
	CRIO       = "cri-o"
	Podman     = "podman"
	LXC        = "lxc" // also LXD and Incus
	Nspawn     = "nspawn"
)

// Identity is what is known of a cgroup. Fields that are not known are empty.
// All strings are clean label values. It does not change: share it.
type Identity struct {
	// ContainerID is that of the innermost container, as its runtime has it:
	// 64 hexadecimal digits for most; the name for lxc and nspawn. Empty: on
	// the host.
	ContainerID string
	// Runtime is one of the constants above, empty if not known.
	Runtime string
	// OuterID is the container around this one, if there is one.
	OuterID string
	// ContainerName, Image, PodName and PodNamespace come from the runtime's
	// own files.
	ContainerName, Image  string
	PodName, PodNamespace string
	// PodUID is Kubernetes' id of the pod, or podman's.
	PodUID string
	// Unit is the systemd unit of the host's manager.
	Unit string
	// Path of the cgroup, from the root of its hierarchy; cut like a label.
	Path string

	label string
}

// maxLabel keeps labels short enough to read, and as long as a key of a
// ranking holds. Names of Kubernetes have at most 63 bytes.
const maxLabel = 64

// shortID is how much of a long id people use.
const shortID = 12

// Label is the value of a label "container": the container's name, or else the
// first 12 digits of its id; empty on the host.
func (i *Identity) Label() string { return i.label }

// finish cleans what came from outside and settles the label.
func (i Identity) finish() *Identity {
	for _, s := range []*string{
		&i.ContainerID, &i.OuterID, &i.ContainerName, &i.Image, &i.PodName, &i.PodNamespace, &i.PodUID, &i.Unit, &i.Path,
	} {
		*s = strings.Clone(metric.Clean(*s))
	}
	switch {
	case i.ContainerName != "":
		i.label = cut(i.ContainerName, maxLabel)
	case isID(i.ContainerID):
		i.label = i.ContainerID[:shortID]
	default:
		i.label = cut(i.ContainerID, maxLabel)
	}
	return &i
}

// cut shortens clean text between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
