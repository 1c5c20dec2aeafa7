// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// Limits of what is read of containerd.
const (
	maxTasks      = 4096
	maxNamespaces = 64
)

// states are the folders where containerd keeps running tasks, with those of
// k3s, docker's own and MicroK8s. In each is NAMESPACE/ID/config.json, the OCI
// configuration, from before the container's cgroup is made until it is gone.
var states = []string{
	"run/containerd/io.containerd.runtime.v2.task",
	"run/k3s/containerd/io.containerd.runtime.v2.task",
	"run/docker/containerd/daemon/io.containerd.runtime.v2.task",
	"var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
}

// task is a container that containerd runs.
type task struct {
	id, cgroup string
	names      names
	seen       bool
}

// tasks mirrors the task folders of containerd. It reads each configuration
// once, and lists a folder again only when its modification time changed.
type tasks struct {
	root  *hostfs.Tree
	now   func() time.Time
	known map[string]*task // by folder
	// listed is when each folder was modified and whether that can be
	// trusted: not while its time is so young that another change would not
	// show, or a configuration in it could not be read yet.
	listed map[string]time.Time
}

// settled is how old a modification time must be to be trusted: file systems
// count in ticks of the kernel.
const settled = time.Second

func (t *tasks) refresh(ctx context.Context) error {
	var dirs []string
	for _, state := range states {
		entries, err := t.root.ReadDir(ctx, state)
		if errors.Is(err, hostfs.ErrHung) {
			return err
		}
		for _, e := range entries[:min(len(entries), maxNamespaces)] {
			dirs = append(dirs, state+"/"+e.Name)
		}
	}
	listed := map[string]time.Time{}
	for _, dir := range dirs {
		info, err := t.root.Stat(ctx, dir)
		if err != nil {
			if errors.Is(err, hostfs.ErrHung) {
				return err
			}
			continue
		}
		if at, ok := t.listed[dir]; ok && at.Equal(info.ModTime) {
			listed[dir] = at
			continue
		}
		whole, err := t.list(ctx, dir)
		if errors.Is(err, hostfs.ErrHung) {
			return err
		}
		if whole && t.now().Sub(info.ModTime) > settled {
			listed[dir] = info.ModTime
		}
	}
	t.listed = listed
	for folder := range t.known {
		if !slices.Contains(dirs, path.Dir(folder)) {
			delete(t.known, folder)
		}
	}
	return nil
}

// list brings the tasks of one namespace up to date, and says whether all of
// them could be read.
func (t *tasks) list(ctx context.Context, dir string) (whole bool, err error) {
	entries, err := t.root.ReadDir(ctx, dir)
	if err != nil {
		return false, err
	}
	whole = true
	for _, e := range entries {
		folder := dir + "/" + e.Name
		if held := t.known[folder]; held != nil {
			held.seen = true
			continue
		}
		if len(t.known) >= maxTasks {
			continue
		}
		b, err := t.root.ReadLimit(ctx, folder+"/config.json", maxFile)
		if errors.Is(err, hostfs.ErrHung) {
			return false, err
		}
		if err != nil && !errors.Is(err, hostfs.ErrTooLarge) {
			whole = false // being made or removed
			continue
		}
		t.known[folder] = parseTask(b, path.Base(dir), e.Name)
	}
	for folder, held := range t.known {
		if path.Dir(folder) != dir {
			continue
		}
		if !held.seen && !slices.ContainsFunc(entries, func(e hostfs.Entry) bool { return dir+"/"+e.Name == folder }) {
			delete(t.known, folder)
			continue
		}
		held.seen = false
	}
	return whole, nil
}

// parseTask reads the OCI configuration of a task. What cannot be read has no
// names and no cgroup.
func parseTask(config []byte, namespace, id string) *task {
	var c struct {
		Annotations map[string]string `json:"annotations"`
		Linux       struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if json.Unmarshal(config, &c) != nil {
		c.Annotations, c.Linux.CgroupsPath = nil, ""
	}
	a := c.Annotations
	out := &task{id: id, cgroup: cgroupOf(c.Linux.CgroupsPath), names: names{
		runtime: Containerd, image: a["io.kubernetes.cri.image-name"],
		pod: a["io.kubernetes.cri.sandbox-name"], podNamespace: a["io.kubernetes.cri.sandbox-namespace"],
		podUID: a["io.kubernetes.cri.sandbox-uid"],
	}}
	switch {
	case namespace == "moby":
		out.names = names{runtime: Docker} // docker's own files know more
	case a["io.kubernetes.cri.container-name"] != "":
		out.names.container = a["io.kubernetes.cri.container-name"]
	case a["nerdctl/name"] != "":
		out.names.container = a["nerdctl/name"]
	case !isID(id):
		out.names.container = id // ctr: the user chose it
	}
	return out
}

// cgroupOf turns cgroupsPath of the OCI configuration into what a path of the
// cgroup contains: a path from the root, or with the systemd driver
// slice:prefix:name the name of the scope.
func cgroupOf(configured string) string {
	if configured == "" {
		return ""
	}
	if parts := strings.Split(configured, ":"); len(parts) == 3 {
		if parts[1] == "" {
			return parts[2] + ".scope"
		}
		return parts[1] + "-" + parts[2] + ".scope"
	}
	return path.Clean("/" + configured)
}

// find returns the task that a cgroup belongs to: by its id, or else because
// the cgroup, or one above it, is where the task was put. Whoever starts a
// container with a cgroup of his own choice may choose one with another id.
func (t *tasks) find(told *told) *task {
	if told.ContainerID != "" {
		for _, held := range t.known {
			if held.id == told.ContainerID {
				return held
			}
		}
	}
	var best *task
	for _, held := range t.known {
		if held.holds(told.Path) && (best == nil || len(held.cgroup) > len(best.cgroup)) {
			best = held
		}
	}
	return best
}

func (t *task) holds(cgroup string) bool {
	switch {
	case t.cgroup == "" || t.cgroup == "/":
		return false
	case strings.HasPrefix(t.cgroup, "/"):
		return cgroup == t.cgroup || strings.HasPrefix(cgroup, t.cgroup+"/")
	}
	return slices.Contains(strings.Split(cgroup, "/"), t.cgroup)
}
