// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// maxFile is the largest file of a runtime that is read, in bytes. A container
// with some hundred mounts has a config.json of 60 kB.
const maxFile = 1 << 20

// pause is how long the runtimes' files are left alone after a file system
// has not answered in time.
const pause = time.Minute

// names are what a runtime's own files say of a container.
type names struct {
	runtime                   string
	container, image          string
	pod, podNamespace, podUID string
}

func (n names) addTo(i *Identity) {
	i.Runtime = cmp.Or(i.Runtime, n.runtime)
	i.ContainerName, i.Image = n.container, n.image
	i.PodName, i.PodNamespace = n.pod, n.podNamespace
	i.PodUID = cmp.Or(i.PodUID, n.podUID)
}

// files reads what runtimes write of their containers under the host's root.
// Use it from one goroutine at a time.
type files struct {
	root  *hostfs.Tree
	now   func() time.Time
	mute  time.Time // no reads until then
	tasks tasks
}

func newFiles(root *hostfs.Tree, now func() time.Time) *files {
	return &files{root: root, now: now, tasks: tasks{root: root, now: now, known: map[string]*task{}}}
}

// identify adds what files tell to what a path told. A file that is missing
// or cannot be read adds nothing. False: they did not answer in time, now or
// a short while ago, so it is worth to ask again.
func (f *files) identify(ctx context.Context, t *told) bool {
	if !t.hosted {
		return true
	}
	if f.now().Before(f.mute) {
		return !t.isOpen()
	}
	if err := f.ask(ctx, t); errors.Is(err, hostfs.ErrHung) {
		f.mute = f.now().Add(pause)
		return false
	}
	return true
}

// isOpen says whether files could tell more than the path did.
func (t *told) isOpen() bool {
	return t.ContainerID != "" && t.Runtime != LXC && t.Runtime != Nspawn || t.machine != "" || isCandidate(t)
}

func (f *files) ask(ctx context.Context, t *told) error {
	if t.ContainerID == "" && t.machine != "" {
		return f.askMachined(ctx, t)
	}
	if t.Runtime == LXC || t.Runtime == Nspawn {
		return nil
	}
	var task *task
	if isCandidate(t) {
		if err := f.tasks.refresh(ctx); err != nil {
			return err
		}
		if task = f.tasks.find(t); task != nil {
			t.ContainerID = task.id
			task.names.addTo(&t.Identity)
		}
	}
	if t.ContainerID == "" {
		return nil
	}
	for _, source := range []struct {
		runtime string
		read    func(context.Context, string) (names, error)
	}{{Docker, f.docker}, {CRIO, f.crio}, {Podman, f.podman}} {
		// A path that names no runtime may be of any.
		if t.Runtime != "" && t.Runtime != source.runtime || !isID(t.ContainerID) {
			continue
		}
		n, err := source.read(ctx, t.ContainerID)
		if errors.Is(err, hostfs.ErrHung) {
			return err
		}
		if err == nil {
			n.runtime = source.runtime
			n.addTo(&t.Identity)
			return nil
		}
	}
	return nil
}

// isCandidate says whether containerd may know the cgroup: it runs containers
// in any cgroup, but the units of the host are not among them.
func isCandidate(t *told) bool {
	if t.ContainerID != "" {
		return t.Runtime == "" || t.Runtime == Containerd
	}
	return t.Path != "/" && !strings.HasSuffix(t.Unit, ".service")
}

// document decodes a JSON file. Unknown keys, and what has another type than
// expected, are no error worth telling apart.
func (f *files) document(ctx context.Context, name string, into any) error {
	b, err := f.root.ReadLimit(ctx, name, maxFile)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// docker reads config.v2.json, which the daemon keeps for each container. The
// labels are those of a kubelet that used docker.
func (f *files) docker(ctx context.Context, id string) (names, error) {
	var c struct {
		Name   string
		Config struct {
			Image  string
			Labels map[string]string
		}
	}
	if err := f.document(ctx, "var/lib/docker/containers/"+id+"/config.v2.json", &c); err != nil {
		return names{}, err
	}
	labels := c.Config.Labels
	return names{
		container: cmp.Or(labels["io.kubernetes.container.name"], strings.TrimPrefix(c.Name, "/")),
		image:     c.Config.Image,
		pod:       labels["io.kubernetes.pod.name"], podNamespace: labels["io.kubernetes.pod.namespace"],
		podUID: labels["io.kubernetes.pod.uid"],
	}, nil
}

// crio reads the OCI configuration, whose annotations cri-o fills.
func (f *files) crio(ctx context.Context, id string) (names, error) {
	var errs []error
	for _, dir := range []string{"run/containers/storage", "var/lib/containers/storage"} {
		var c struct{ Annotations map[string]string }
		if err := f.document(ctx, dir+"/overlay-containers/"+id+"/userdata/config.json", &c); err != nil {
			errs = append(errs, err)
			continue
		}
		a := c.Annotations
		if a["io.kubernetes.cri-o.ContainerType"] == "" {
			errs = append(errs, errNotHis)
			continue
		}
		return names{
			container: a["io.kubernetes.container.name"],
			image:     cmp.Or(a["io.kubernetes.cri-o.UserRequestedImage"], a["io.kubernetes.cri-o.ImageName"]),
			pod:       a["io.kubernetes.pod.name"], podNamespace: a["io.kubernetes.pod.namespace"],
			podUID: a["io.kubernetes.pod.uid"],
		}, nil
	}
	return names{}, errors.Join(errs...)
}

var errNotHis = errors.New("a container of another runtime")

// podman reads the list that containers/storage keeps. Rootless containers
// have theirs in the user's home, which is not read.
func (f *files) podman(ctx context.Context, id string) (names, error) {
	var errs []error
	for _, driver := range []string{"overlay", "vfs", "btrfs", "zfs"} {
		var list []struct {
			ID       string   `json:"id"`
			Names    []string `json:"names"`
			Metadata string   `json:"metadata"`
		}
		if err := f.document(ctx, "var/lib/containers/storage/"+driver+"-containers/containers.json", &list); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, c := range list {
			if c.ID != id {
				continue
			}
			var meta struct {
				Name  string `json:"name"`
				Image string `json:"image-name"`
			}
			_ = json.Unmarshal([]byte(c.Metadata), &meta) // empty is fine
			return names{container: cmp.Or(slices.Concat(c.Names, []string{meta.Name})...), image: meta.Image}, nil
		}
	}
	return names{}, errors.Join(append(errs, errNotHis)...)
}

// askMachined reads what systemd-machined keeps of a machine: nspawn without
// a payload directory is told from a virtual machine by it.
func (f *files) askMachined(ctx context.Context, t *told) error {
	// The supervisor is nspawn itself, outside of the container.
	if strings.Contains(t.machine, "/") || strings.HasSuffix(t.Path, "/supervisor") {
		return nil
	}
	b, err := f.root.ReadLimit(ctx, "run/systemd/machines/"+t.machine, maxFile)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "SERVICE=systemd-nspawn" {
			t.ContainerID, t.Runtime = t.machine, Nspawn
		}
	}
	return nil
}
