// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Ids and uids that only look like some.
const (
	idA  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	idB  = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	uid  = "12345678-9abc-def0-1234-56789abcdef0"
	uid_ = "12345678_9abc_def0_1234_56789abcdef0"
	hash = "0123456789abcdef0123456789abcdef"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path                          string
		runtime, id, outer, pod, unit string
		machine                       string
		unhosted                      bool
	}{
		{path: "/"},
		{path: ""},
		{path: "/system.slice/ssh.service", unit: "ssh.service"},
		{path: "/system.slice", unit: ""},
		{path: "/init.scope", unit: "init.scope"},
		{path: "/system.slice/system-getty.slice/getty@tty1.service", unit: "getty@tty1.service"},
		{path: "/system.slice/docker.service", unit: "docker.service"},
		{path: "/system.slice/_cgroup.service/sub", unit: "cgroup.service"},
		{path: "/user.slice/user-1000.slice/session-3.scope", unit: "session-3.scope", unhosted: true},
		{path: "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", unit: "user@1000.service", unhosted: true},

		// docker, with the cgroupfs and the systemd driver
		{path: "/docker/" + idA, runtime: Docker, id: idA},
		{path: "/docker/" + idA + "/init.scope", runtime: Docker, id: idA},
		{path: "/system.slice/docker-" + idA + ".scope", runtime: Docker, id: idA, unit: "docker-" + idA + ".scope"},
		{path: "/system.slice/docker-" + idA + ".scope/system.slice/ssh.service", runtime: Docker, id: idA, unit: "docker-" + idA + ".scope"},
		{path: "/my.slice/docker-" + idA + ".scope", runtime: Docker, id: idA, unit: "docker-" + idA + ".scope"},
		{path: "/myparent/" + idA, id: idA},
		{path: "/ecs/task/" + idA, id: idA},

		// kubernetes: guaranteed, burstable, besteffort, with both drivers
		{path: "/kubepods/pod" + uid + "/" + idA, id: idA, pod: uid},
		{path: "/kubepods/burstable/pod" + uid + "/" + idA, id: idA, pod: uid},
		{path: "/kubepods/besteffort/pod" + uid + "/" + idA + "/sub", id: idA, pod: uid},
		{path: "/kubepods/besteffort/pod" + hash + "/" + idA, id: idA, pod: hash},
		{path: "/kubepods/besteffort/pod" + uid, pod: uid},
		{path: "/kubepods.slice/kubepods-pod" + uid_ + ".slice/cri-containerd-" + idA + ".scope",
			runtime: Containerd, id: idA, pod: uid, unit: "cri-containerd-" + idA + ".scope"},
		{path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + idA + ".scope",
			runtime: Containerd, id: idA, pod: uid, unit: "cri-containerd-" + idA + ".scope"},
		{path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/crio-" + idA + ".scope",
			runtime: CRIO, id: idA, pod: uid, unit: "crio-" + idA + ".scope"},
		{path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/crio-conmon-" + idA + ".scope",
			pod: uid, unit: "crio-conmon-" + idA + ".scope"},
		{path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/docker-" + idA + ".scope",
			runtime: Docker, id: idA, pod: uid, unit: "docker-" + idA + ".scope"},
		{path: "/kubepods/burstable/pod" + uid + "/crio-" + idA, runtime: CRIO, id: idA, pod: uid},
		{path: "/system.slice/containerd.service/kubepods-besteffort-pod" + uid_ + ".slice:cri-containerd:" + idA,
			runtime: Containerd, id: idA, unit: "containerd.service"},
		{path: "/system.slice/nerdctl-" + idA + ".scope", runtime: Containerd, id: idA, unit: "nerdctl-" + idA + ".scope"},
		{path: "/system.slice/other-" + idA + ".scope", id: idA, unit: "other-" + idA + ".scope"},
		{path: "/default/" + idA, id: idA},
		{path: "/default/demo"},

		// podman: rootful, its conmon, pods with both drivers, rootless
		{path: "/machine.slice/libpod-" + idA + ".scope/container", runtime: Podman, id: idA, unit: "libpod-" + idA + ".scope"},
		{path: "/machine.slice/libpod-conmon-" + idA + ".scope", unit: "libpod-conmon-" + idA + ".scope"},
		{path: "/libpod_parent/libpod-" + idA, runtime: Podman, id: idA},
		{path: "/libpod_parent/" + idB + "/libpod-" + idA, runtime: Podman, id: idA, pod: idB},
		{path: "/machine.slice/machine-libpod_pod_" + idB + ".slice/libpod-" + idA + ".scope",
			runtime: Podman, id: idA, pod: idB, unit: "libpod-" + idA + ".scope"},
		{path: "/system.slice/web.service/libpod-payload-" + idA, runtime: Podman, id: idA, unit: "web.service"},
		{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope/container",
			runtime: Podman, id: idA, unit: "user@1000.service", unhosted: true},
		{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_" + idB + ".slice/libpod-" + idA + ".scope",
			runtime: Podman, id: idA, pod: idB, unit: "user@1000.service", unhosted: true},

		// lxc, lxd and incus
		{path: "/lxc.payload.web", runtime: LXC, id: "web"},
		{path: "/lxc.payload.web/system.slice/ssh.service", runtime: LXC, id: "web"},
		{path: "/lxc.payload.project_web/init.scope", runtime: LXC, id: "project_web"},
		{path: "/lxc.payload/web", runtime: LXC, id: "web"},
		{path: "/lxc/web/init.scope", runtime: LXC, id: "web"},
		{path: "/lxc.monitor.web"},
		{path: "/system.slice/lxc/web", unit: ""},

		// nspawn, by a unit and by machined; a virtual machine is none
		{path: "/machine.slice/systemd-nspawn@web.service/payload/init.scope", runtime: Nspawn, id: "web", unit: "systemd-nspawn@web.service"},
		{path: "/machine.slice/systemd-nspawn@web.service/supervisor", unit: "systemd-nspawn@web.service"},
		{path: `/machine.slice/machine-my\x2dweb.scope/payload`, runtime: Nspawn, id: "my-web", unit: `machine-my\x2dweb.scope`},
		{path: `/machine.slice/machine-my\x2dweb.scope/supervisor`, unit: `machine-my\x2dweb.scope`, machine: "my-web"},
		{path: `/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`, unit: `machine-qemu\x2d1\x2dvm.scope`, machine: "qemu-1-vm"},

		// nested: kind, docker in docker, in lxc
		{path: "/docker/" + idA + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + idB + ".scope",
			runtime: Containerd, id: idB, outer: idA, pod: uid, unhosted: true},
		{path: "/system.slice/docker-" + idA + ".scope/docker/" + idB, runtime: Docker, id: idB, outer: idA, unit: "docker-" + idA + ".scope", unhosted: true},
		{path: "/kubepods/burstable/pod" + uid + "/" + idA + "/docker/" + idB, runtime: Docker, id: idB, outer: idA, pod: uid, unhosted: true},
		{path: "/lxc.payload.web/system.slice/docker-" + idA + ".scope", runtime: Docker, id: idA, outer: "web", unhosted: true},

		// what only looks like one
		{path: "/system.slice/docker-" + idA[1:] + ".scope", unit: "docker-" + idA[1:] + ".scope"},
		{path: "/docker/" + strings.ToUpper(idA)},
		{path: "/docker/" + idA + "0"},
		{path: "/kubepods/burstable/pod" + uid[1:]},
		{path: "/kubepods/burstable/podium"},
		{path: "/..//../docker/" + idA, runtime: Docker, id: idA},
	} {
		got := parsePath(c.path)
		want := told{hosted: !c.unhosted, machine: c.machine, Identity: Identity{
			ContainerID: c.id, Runtime: c.runtime, OuterID: c.outer, PodUID: c.pod, Unit: c.unit, Path: c.path,
		}}
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.path, got, want)
		}
	}
}

func TestParseProcCgroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, best, unified string }{
		{"empty", "", "", ""},
		{"v2", "0::/system.slice/ssh.service\n", "/system.slice/ssh.service", "/system.slice/ssh.service"},
		{"v2 in a namespace", "0::/../../docker/" + idA + "\n", "/../../docker/" + idA, "/../../docker/" + idA},
		{"v1, container", "12:pids:/docker/" + idA + "\n2:cpu,cpuacct:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n", "/docker/" + idA, ""},
		{"v1, unit", "12:pids:/\n2:cpu,cpuacct:/system.slice\n1:name=systemd:/system.slice/ssh.service\n", "/system.slice/ssh.service", ""},
		{"hybrid, container in v1 only", "3:memory:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n0::/system.slice/containerd.service\n",
			"/docker/" + idA, "/system.slice/containerd.service"},
		{"hybrid, container in one controller only", "3:memory:/docker/" + idA + "\n1:name=systemd:/system.slice/x.service\n0::/\n", "/docker/" + idA, "/"},
		{"hybrid, all in the root", "3:memory:/\n1:name=systemd:/\n0::/\n", "/", "/"},
		{"hybrid, no systemd", "3:memory:/jobs/1\n1:name=systemd:/\n0::/\n", "/jobs/1", "/"},
		{"a colon in the path", "0::/a.slice:cri-containerd:" + idA + "\n", "/a.slice:cri-containerd:" + idA, "/a.slice:cri-containerd:" + idA},
		{"no line end", "0::/x", "/x", "/x"},
		{"broken", "0\n::\n0:x\n0::relative\n", "", ""},
	} {
		if best, unified := parseProcCgroup(c.text); best != c.best || unified != c.unified {
			t.Errorf("%s: %q and %q, want %q and %q", c.name, best, unified, c.best, c.unified)
		}
	}
}

func TestPathIn(t *testing.T) {
	t.Parallel()
	const hybrid = "12:pids:/a\n2:cpu,cpuacct:/b:c\n1:name=systemd:/d\n0::/e\n"
	for _, c := range []struct{ name, text, controller, want string }{
		{"empty", "", "memory", ""},
		{"version 2", hybrid, "", "/e"},
		{"alone", hybrid, "pids", "/a"},
		{"with another, a colon in the path", hybrid, "cpuacct", "/b:c"},
		{"part of a name", hybrid, "acct", ""},
		{"not mounted", hybrid, "memory", ""},
		{"no version 2", "12:pids:/a\n", "", ""},
		{"an unnamed hierarchy of version 1", "12::/a\n", "", ""},
		{"broken", "0\n::\n0:x\n0::relative\n", "", ""},
	} {
		if got := pathIn(c.text, c.controller); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/system.slice/docker-" + idA + ".scope/docker/" + idB)
	f.Add(`/machine.slice/machine-a\x2d\xff.scope/payload`)
	f.Add("/kubepods/besteffort/pod" + uid + "/x:y:" + idA)
	f.Fuzz(func(t *testing.T, path string) {
		told := parsePath(path)
		if told.Runtime != "" && told.ContainerID == "" {
			t.Errorf("a runtime without a container: %+v", told)
		}
		i := told.finish()
		if !utf8.ValidString(i.Label()) || len(i.Label()) > maxLabel || len(i.Path) > 128 || len(i.ContainerID) > 128 {
			t.Errorf("not clean: %+v", i)
		}
	})
}

func FuzzParseProcCgroup(f *testing.F) {
	f.Add("3:memory:/docker/" + idA + "\n0::/\n")
	f.Fuzz(func(t *testing.T, text string) {
		best, unified := parseProcCgroup(text)
		for _, controller := range []string{"", "memory"} {
			if path := pathIn(text, controller); path != "" && (path[0] != '/' || !strings.Contains(text, path)) {
				t.Errorf("%q in the hierarchy of %q", path, controller)
			}
		}
		if !strings.Contains(text, best) || !strings.Contains(text, unified) || (best == "" && unified != "") {
			t.Errorf("%q and %q", best, unified)
		}
	})
}
