// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func rootOf(path string) *hostfs.Tree { return hostfs.New(hostfs.Paths{Rootfs: path}).Rootfs }

func identify(t testing.TB, f *files, path string) *Identity {
	t.Helper()
	told := parsePath(path)
	f.identify(t.Context(), &told)
	return told.finish()
}

func TestNames(t *testing.T) {
	t.Parallel()
	idC, idD, idE := strings.Repeat("c", 64), strings.Repeat("d", 64), strings.Repeat("e", 64)
	const kube = "/kubepods/burstable/pod" + uid + "/"
	for _, c := range []struct {
		host, path string
		want       Identity // Path and Unit come from the path alone
		label      string
	}{
		{"docker", "/docker/" + idA, Identity{ContainerID: idA, Runtime: Docker, ContainerName: "web", Image: "nginx:1.27"}, "web"},
		{"docker", "/myparent/" + idA, Identity{ContainerID: idA, Runtime: Docker, ContainerName: "web", Image: "nginx:1.27"}, "web"},
		{"docker", kube + idB, Identity{ContainerID: idB, Runtime: Docker, ContainerName: "app", Image: "sha256:1", PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "app"},
		{"docker", "/docker/" + idC, Identity{ContainerID: idC, Runtime: Docker}, "cccccccccccc"},
		{"docker", "/x/" + idC, Identity{ContainerID: idC}, "cccccccccccc"},
		// A container, or a user, that calls a cgroup of its own docker-ID.
		{"docker", "/docker/" + idB + "/docker/" + idA, Identity{ContainerID: idA, Runtime: Docker, OuterID: idB}, "0123456789ab"},
		{"docker", "/user.slice/user-1000.slice/user@1000.service/docker-" + idA + ".scope", Identity{ContainerID: idA, Runtime: Docker}, "0123456789ab"},

		{"containerd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + idA + ".scope",
			Identity{ContainerID: idA, Runtime: Containerd, ContainerName: "app", Image: "docker.io/library/app:2", PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "app"},
		{"containerd", "/kubepods/pod" + uid + "/" + idB, Identity{ContainerID: idB, Runtime: Containerd, PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "fedcba987654"},
		{"containerd", kube + idC, Identity{ContainerID: idC, Runtime: Containerd, ContainerName: "k3s-app", PodUID: uid}, "k3s-app"},
		{"containerd", kube + idE, Identity{ContainerID: idE, PodUID: uid}, "eeeeeeeeeeee"},
		{"containerd", "/default/" + idD, Identity{ContainerID: idD, Runtime: Containerd, ContainerName: "shell"}, "shell"},
		{"containerd", "/default/demo", Identity{ContainerID: "demo", Runtime: Containerd, ContainerName: "demo"}, "demo"},
		{"containerd", "/default/demo/init.scope", Identity{ContainerID: "demo", Runtime: Containerd, ContainerName: "demo"}, "demo"},
		{"containerd", "/default/demo/sub/x", Identity{ContainerID: "demo2", Runtime: Containerd, ContainerName: "demo2"}, "demo2"},
		{"containerd", "/default/demolition", Identity{}, ""},
		{"containerd", "/default", Identity{}, ""},
		{"containerd", "/", Identity{}, ""},
		{"containerd", "/my.slice/job-scoped.scope/sub", Identity{ContainerID: "scoped", Runtime: Containerd, ContainerName: "scoped"}, "scoped"},
		{"containerd", "/my.slice/bare.scope", Identity{ContainerID: "bare", Runtime: Containerd, ContainerName: "bare"}, "bare"},
		{"containerd", "/jobs/" + strings.Repeat("a", 64), Identity{ContainerID: "other-id", Runtime: Containerd, ContainerName: "other-id"}, "other-id"},
		{"containerd", "/system.slice/demo.service", Identity{}, ""},

		{"crio", "/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-" + idA + ".scope",
			Identity{ContainerID: idA, Runtime: CRIO, ContainerName: "app", Image: "quay.io/app:2", PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "app"},
		{"crio", kube + idA, Identity{ContainerID: idA, Runtime: CRIO, ContainerName: "app", Image: "quay.io/app:2", PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "app"},
		{"crio", kube + "crio-" + idB, Identity{ContainerID: idB, Runtime: CRIO, Image: "registry.k8s.io/pause:3.9", PodName: "pod-1", PodUID: uid}, "fedcba987654"},

		{"podman", "/machine.slice/libpod-" + idB + ".scope/container", Identity{ContainerID: idB, Runtime: Podman, ContainerName: "db", Image: "docker.io/library/postgres:17"}, "db"},
		{"podman", "/machine.slice/libpod-" + idA + ".scope/container", Identity{ContainerID: idA, Runtime: Podman, ContainerName: "web", Image: "docker.io/library/nginx:1"}, "web"},
		{"podman", "/other/" + idA, Identity{ContainerID: idA, Runtime: Podman, ContainerName: "web", Image: "docker.io/library/nginx:1"}, "web"},
		{"podman", "/libpod_parent/libpod-" + idC, Identity{ContainerID: idC, Runtime: Podman, ContainerName: "plain"}, "plain"},
		{"podman", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idB + ".scope/container", Identity{ContainerID: idB, Runtime: Podman}, "fedcba987654"},

		{"machined", `/machine.slice/machine-my\x2dweb.scope/init.scope`, Identity{ContainerID: "my-web", Runtime: Nspawn}, "my-web"},
		{"machined", `/machine.slice/machine-my\x2dweb.scope/supervisor`, Identity{}, ""},
		{"machined", `/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt`, Identity{}, ""},
		{"machined", `/machine.slice/machine-\x2e\x2e\x2f\x2e\x2e\x2fmy\x2dweb.scope`, Identity{}, ""},
		{"machined", "/lxc.payload.web", Identity{ContainerID: "web", Runtime: LXC}, "web"},

		{"hostile", "/docker/" + idA, Identity{ContainerID: idA, Runtime: Docker, ContainerName: "a\uFFFDb\uFFFD[31m", Image: strings.Repeat("x", 128), PodName: "\uFFFDpod"}, "a\uFFFDb\uFFFD[31m"},
		{"hostile", "/docker/" + idB, Identity{ContainerID: idB, Runtime: Docker}, "fedcba987654"},
		{"hostile", "/docker/" + idC, Identity{ContainerID: idC, Runtime: Docker, ContainerName: strings.Repeat("\u00e9", 64)}, strings.Repeat("\u00e9", 32)},
		{"hostile", "/docker/" + idD, Identity{ContainerID: idD, Runtime: Docker}, "dddddddddddd"},
		{"hostile", "/machine.slice/libpod-" + idA + ".scope", Identity{ContainerID: idA, Runtime: Podman}, "0123456789ab"},

		{"missing", "/docker/" + idA, Identity{ContainerID: idA, Runtime: Docker}, "0123456789ab"},
	} {
		got := identify(t, newFiles(rootOf("testdata/"+c.host), time.Now), c.path)
		if got.Label() != c.label {
			t.Errorf("%s %s: label %q, want %q", c.host, c.path, got.Label(), c.label)
		}
		c.want.label, c.want.Path, c.want.Unit = got.label, metric.Clean(c.path), got.Unit
		if *got != c.want {
			t.Errorf("%s %s:\ngot  %+v\nwant %+v", c.host, c.path, *got, c.want)
		}
	}
}

const taskFolder = "run/containerd/io.containerd.runtime.v2.task/default/"

func writeTask(t testing.TB, root, id, config string) {
	t.Helper()
	dir := filepath.Join(root, taskFolder, id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if config == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Tasks come, are being made, and go, within one tick of the file system's
// clock and after it.
func TestTasksFollow(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	now := time.Now()
	f := newFiles(rootOf(root), func() time.Time { return now })
	config := func(cgroup string) string { return `{"linux":{"cgroupsPath":"` + cgroup + `"}}` }
	expect := func(when, path, id string) {
		t.Helper()
		if got := identify(t, f, path).ContainerID; got != id {
			t.Errorf("%s: %s is %q, want %q", when, path, got, id)
		}
	}
	expect("without containerd", "/default/a", "")
	writeTask(t, root, "a", config("/default/a"))
	expect("made", "/default/a", "a")
	tick, err := os.Stat(filepath.Join(root, taskFolder))
	if err != nil {
		t.Fatal(err)
	}
	writeTask(t, root, "b", config("/default/b"))
	if err := os.Chtimes(filepath.Join(root, taskFolder), time.Time{}, tick.ModTime()); err != nil {
		t.Fatal(err)
	}
	expect("made in the same tick", "/default/b", "b")
	writeTask(t, root, "c", "")
	expect("without configuration", "/default/c", "")
	now = now.Add(time.Hour)
	writeTask(t, root, "c", config("/default/c"))
	expect("with configuration, much later", "/default/c", "c")
	// From now on nothing is read again while nothing changes.
	writeTask(t, root, "a", config("/default/z"))
	expect("after a change to what was read", "/default/a", "a")
	if err := os.RemoveAll(filepath.Join(root, taskFolder, "a")); err != nil {
		t.Fatal(err)
	}
	expect("removed", "/default/a", "")
	if err := os.RemoveAll(filepath.Join(root, taskFolder)); err != nil {
		t.Fatal(err)
	}
	expect("all removed", "/default/b", "")
	if n := len(f.tasks.known); n != 0 {
		t.Errorf("%d tasks left", n)
	}
}

// What is too large, no file, or leads out of the root is not read.
func TestNotRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := newFiles(rootOf(root), time.Now)
	writeTask(t, root, "large", `{"linux":{"cgroupsPath":"/default/large"}}`+strings.Repeat(" ", maxFile))
	writeTask(t, root, "fifo", "")
	if err := unix.Mkfifo(filepath.Join(root, taskFolder, "fifo", "config.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "config.json"), []byte(`{"linux":{"cgroupsPath":"/default/link"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, taskFolder, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"large", "fifo", "link"} {
		if got := identify(t, f, "/default/"+name).ContainerID; got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A file system that does not answer is left alone for a while, and what was
// not learned is asked for again.
func TestHungFileSystem(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := newFiles(rootOf("testdata/docker"), func() time.Time { return now })
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, c := range []struct {
		name, path string
		ctx        context.Context
		pass       time.Duration
		whole      bool
		label      string
	}{
		{"hangs", "/docker/" + idA, late, 0, false, "0123456789ab"},
		{"left alone", "/docker/" + idA, t.Context(), 0, false, "0123456789ab"},
		{"nothing to ask", "/system.slice/a.service", t.Context(), 0, true, ""},
		{"nothing to ask", "/lxc.payload.web", t.Context(), 0, true, "web"},
		{"a nested one is never asked about", "/docker/" + idB + "/docker/" + idA, t.Context(), 0, true, "0123456789ab"},
		{"asked again", "/docker/" + idA, t.Context(), pause, true, "web"},
	} {
		now = now.Add(c.pass)
		told := parsePath(c.path)
		if whole := f.identify(c.ctx, &told); whole != c.whole {
			t.Errorf("%s: whole %v", c.name, whole)
		}
		if got := told.finish().Label(); got != c.label {
			t.Errorf("%s: label %q, want %q", c.name, got, c.label)
		}
	}
}

func FuzzParseTask(f *testing.F) {
	f.Add([]byte(`{"linux":{"cgroupsPath":"a.slice:b:c"},"annotations":{"nerdctl/name":"x"}}`), "default", "id")
	f.Fuzz(func(t *testing.T, config []byte, namespace, id string) {
		task := parseTask(config, namespace, id)
		told := told{hosted: true}
		task.names.addTo(&told.Identity)
		told.ContainerID = task.id
		if i := told.finish(); metric.Clean(i.Label()) != i.Label() || metric.Clean(i.Image) != i.Image || len(i.Label()) > maxLabel {
			t.Errorf("not clean: %+v", i)
		}
		task.holds("/default/x")
	})
}
