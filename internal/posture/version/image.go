// SPDX-License-Identifier: Apache-2.0

package version

import (
	"cmp"
	"context"
	"encoding/json"
	"path"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// The image of a container, from the files its runtime keeps: Docker's
// config.v2.json, containerd's task configuration, CRI-O's and podman's user
// data. The runtime's socket would tell more and is as good as root.

type imageEntry struct {
	name, tag string
	until     time.Time
}

// imageOf returns the name of the image without its registry, and its tag;
// both are empty when no runtime knows the container.
func (f *Finder) imageOf(ctx context.Context, id string) (name, tag string) {
	if e, ok := f.images[id]; ok && f.now().Before(e.until) {
		return e.name, e.tag
	}
	ref := imageReference(ctx, f.root.Rootfs, id)
	name, tag = splitImage(ref)
	if ctx.Err() == nil {
		f.images[id] = imageEntry{name, tag, f.until(ref != "")}
	}
	return name, tag
}

func imageReference(ctx context.Context, host *hostfs.Tree, id string) string {
	if b, err := host.ReadLimit(ctx, "/var/lib/docker/containers/"+id+"/config.v2.json", MaxRead); err == nil {
		return parseDocker(b)
	}
	for _, namespace := range []string{"k8s.io", "moby", "default"} {
		name := "/run/containerd/io.containerd.runtime.v2.task/" + namespace + "/" + id + "/config.json"
		if b, err := host.ReadLimit(ctx, name, MaxRead); err == nil {
			return parseAnnotations(b)
		}
	}
	for _, dir := range []string{"/var/lib/containers/storage/overlay-containers/", "/run/containers/storage/overlay-containers/"} {
		b, err := host.ReadLimit(ctx, dir+id+"/userdata/config.json", MaxRead)
		if err != nil {
			continue
		}
		if ref := parseAnnotations(b); ref != "" {
			return ref
		}
	}
	if b, err := host.ReadLimit(ctx, "/var/lib/containers/storage/overlay-containers/containers.json", MaxRead); err == nil {
		return parseStorage(b, id)
	}
	return ""
}

func parseDocker(b []byte) string {
	var c struct{ Config struct{ Image string } }
	if json.Unmarshal(b, &c) != nil {
		return ""
	}
	return c.Config.Image
}

// parseAnnotations reads an OCI runtime configuration.
func parseAnnotations(b []byte) string {
	var c struct{ Annotations map[string]string }
	if json.Unmarshal(b, &c) != nil {
		return ""
	}
	return cmp.Or(c.Annotations["io.kubernetes.cri.image-name"], c.Annotations["io.kubernetes.cri-o.ImageName"], c.Annotations["nerdctl/image-name"])
}

// parseStorage reads the list of containers/storage, where podman notes the
// name of the image in metadata that is JSON once more.
func parseStorage(b []byte, id string) string {
	var list []struct{ ID, Metadata string }
	if json.Unmarshal(b, &list) != nil {
		return ""
	}
	for _, c := range list {
		if c.ID != id {
			continue
		}
		var m struct {
			Image string `json:"image-name"`
		}
		if json.Unmarshal([]byte(c.Metadata), &m) == nil {
			return m.Image
		}
	}
	return ""
}

// splitImage takes registry:5000/team/name:tag@digest apart. The tag latest
// says nothing about a version, nor does a digest.
func splitImage(ref string) (name, tag string) {
	ref, _, _ = strings.Cut(ref, "@")
	if ref == "" || strings.HasPrefix(ref, "sha256:") {
		return "", ""
	}
	name, tag, _ = strings.Cut(path.Base(ref), ":")
	if tag == "latest" {
		tag = ""
	}
	return name, plausible(tag)
}

// parseCgroup returns the container id and the systemd unit of a process from
// /proc/PID/cgroup. The outermost of each counts: what is below it is the
// container's, or the user's, own to name.
func parseCgroup(text string) (container, unit string) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for component := range strings.SplitSeq(parts[2], "/") {
			if id := containerID(component); id != "" && container == "" {
				container = id
			}
			name, ok := strings.CutSuffix(component, ".service")
			if ok && unit == "" && !strings.HasPrefix(name, "user@") && container == "" {
				unit = name
			}
		}
	}
	return container, unit
}

// containerID finds the 64 hexadecimal digits that runtimes use, alone or as
// in docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope.
func containerID(component string) string {
	component = strings.TrimSuffix(component, ".scope")
	id := component[strings.LastIndexAny(component, "-:")+1:]
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}
