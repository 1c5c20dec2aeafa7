// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// daemon is a containerd of the test's own.
type daemon struct {
	*testkit.Containerd
	t *testing.T
	// rootfs is the host's root as the Resolver sees it.
	rootfs, bundle string
}

func startContainerd(t *testing.T) *daemon {
	t.Helper()
	testkit.RequireBPF(t)
	if host().CgroupRoot == "" {
		t.Skip("needs the root of a cgroup v2 hierarchy")
	}
	c := testkit.StartContainerd(t)
	return &daemon{Containerd: c, t: t, rootfs: c.Rootfs, bundle: c.Bundle}
}

// eventually waits for something that takes a moment.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// run starts a container that sleeps; it ends with the test.
func (d *daemon) run(namespace, name string, options ...string) {
	d.t.Helper()
	in := []string{"-n", namespace}
	run := append(append(in, "run", "-d", "--snapshotter", "native", "--rootfs"), options...)
	// Also what a run that failed half-way has left.
	d.t.Cleanup(func() { d.Remove(namespace, name) })
	if err := d.Try(append(run, d.bundle, name, "/bin/sleep", "600")...); err != nil {
		d.t.Fatal(err)
	}
}

// process is the first process of a container.
func (d *daemon) process(namespace, name string) int {
	d.t.Helper()
	path := filepath.Join(d.rootfs, "run/containerd/io.containerd.runtime.v2.task", namespace, name, "init.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		d.t.Fatal(err)
	}
	return pid
}

// cgroup is the cgroup of a process in a hierarchy.
func (d *daemon) cgroup(pid int, root, controller string) (id uint64, path string) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		d.t.Fatal(err)
	}
	path = pathIn(string(text), controller)
	return inode(d.t, filepath.Join(root, path)), path
}

// Real containers: their cgroups resolve to their ids, whatever cgroup they
// were put in, and are forgotten when they have gone.
func TestContainerd(t *testing.T) {
	d := startContainerd(t)
	unique := strconv.Itoa(os.Getpid())
	id := strings.Repeat("0", idLen-len(unique)) + unique
	for _, c := range []struct {
		namespace, name, cgroup string
		options                 []string
		want                    Identity
		label                   string
	}{
		{"default", "plain-" + unique, "/default/plain-" + unique, nil,
			Identity{ContainerID: "plain-" + unique, Runtime: Containerd, ContainerName: "plain-" + unique}, "plain-" + unique},
		{"default", "moved-" + unique, "/test-" + unique + "/deep/down", nil,
			Identity{ContainerID: "moved-" + unique, Runtime: Containerd, ContainerName: "moved-" + unique}, "moved-" + unique},
		{"k8s.io", id, "/kubepods/burstable/pod" + uid + "/" + id, []string{"--annotation", "io.kubernetes.cri.container-name=app", "--annotation", "io.kubernetes.cri.sandbox-name=pod-1",
			"--annotation", "io.kubernetes.cri.sandbox-namespace=shop", "--annotation", "io.kubernetes.cri.image-name=app:2"},
			Identity{ContainerID: id, Runtime: Containerd, ContainerName: "app", Image: "app:2", PodName: "pod-1", PodNamespace: "shop", PodUID: uid}, "app"},
	} {
		r := resolver(t, Options{CgroupRoot: host().CgroupRoot}, d.rootfs)
		tidy(t, c.cgroup)
		d.run(c.namespace, c.name, append(c.options, "--cgroup", c.cgroup)...)
		pid := d.process(c.namespace, c.name)
		cgroup, path := d.cgroup(pid, host().CgroupRoot, "")
		if path != c.cgroup {
			t.Errorf("%s is in %s, want %s", c.name, path, c.cgroup)
		}
		c.want.Path, c.want.label = path, c.label
		for name, e := range map[string]*struct{ id, tgid int }{
			"the cgroup alone":  {int(cgroup), 0},
			"the process alone": {0, pid},
		} {
			if name == "the process alone" && !r.processes.asked {
				continue
			}
			if got := r.Lookup(exit(uint64(e.id), e.tgid)); *got != c.want {
				t.Errorf("%s, by %s:\ngot  %+v\nwant %+v", c.name, name, *got, c.want)
			}
		}
		d.expectLegacy(pid, c.want)
		filled := resolver(t, Options{CgroupRoot: host().CgroupRoot}, d.rootfs)
		if err := filled.Fill(t.Context()); err != nil {
			t.Error(err)
		}
		if known := filled.unified.byID[cgroup].identity; known == nil || *known != c.want {
			t.Errorf("%s: %+v after Fill", c.name, known)
		}
		d.Remove(c.namespace, c.name)
		eventually(t, "the cgroup to go", func() bool { return !r.unified.is(t.Context(), path, cgroup) })
		r.sweep(t.Context())
		if _, ok := r.unified.byID[cgroup]; ok {
			t.Errorf("%s: still remembered", c.name)
		}
	}
}

// expectLegacy: the container has the same identity by its cgroup of version 1.
func (d *daemon) expectLegacy(pid int, want Identity) {
	d.t.Helper()
	legacy := host().Legacy
	if legacy.Root == "" {
		return
	}
	r := resolver(d.t, Options{LegacyRoot: legacy.Root, LegacyController: legacy.Controller}, d.rootfs)
	id, path := d.cgroup(pid, legacy.Root, legacy.Controller)
	want.Path = path
	if got := r.Lookup(ids(0, id, 0)); *got != want {
		d.t.Errorf("in version 1, by its id:\ngot  %+v\nwant %+v", *got, want)
	}
}

// tidy removes, at the end of the test, the parents of a cgroup that runc makes
// and leaves in each hierarchy.
func tidy(t *testing.T, path string) {
	t.Helper()
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range append(hierarchies, host().CgroupRoot) {
		for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
			full := filepath.Join(hierarchy, dir)
			if _, err := os.Stat(full); err == nil {
				continue // somebody else's
			}
			// The last to be registered is the first to run; children first.
			defer t.Cleanup(func() { _ = os.Remove(full) })
		}
	}
}

// A container is known when its cgroup is made, which is before anything of it
// runs, and still when it has gone.
func TestContainerdThatEndsAtOnce(t *testing.T) {
	d := startContainerd(t)
	name := "early-" + strconv.Itoa(os.Getpid())
	tidy(t, "/default/"+name)
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot}, d.rootfs)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer stop()
	eventually(t, "the root to be watched", func() bool { return r.Stats().Entries > 0 })
	for range 3 {
		before := r.labelled(name)
		if err := d.Try("run", "--rm", "--snapshotter", "native", "--rootfs", d.bundle, name, "/bin/true"); err != nil {
			t.Error(err)
		}
		eventually(t, "the container to be known", func() bool { return r.labelled(name) == before+1 })
	}
}

// labelled counts the cgroups with a label.
func (r *Resolver) labelled(label string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, h := range r.unified.byID {
		if h.identity.Label() == label {
			n++
		}
	}
	return n
}
