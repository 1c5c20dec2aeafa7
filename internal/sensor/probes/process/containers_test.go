// SPDX-License-Identifier: Apache-2.0

package process

import (
	"strconv"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

var id = strings.Repeat("0123456789abcdef", 4)

// A cgroup is known as a container's by its name. What stands behind the name
// here, a hyphen and digits, is the test's own.
func TestContainerCgroups(t *testing.T) {
	host := testkit.Inspect(t)
	for _, c := range []struct {
		cgroup string
		class  string
	}{
		{"docker-" + id + ".scope", "container"},
		{"cri-containerd-" + id + ".scope", "container"},
		{"crio-" + id + ".scope", "container"},
		{"libpod-" + id + ".scope", "container"},
		{id, "container"},
		{"docker/" + id, "container"},
		{"docker/" + id + "/init.scope", "container"},
		{"kubepods.slice/pod", "container"},
		{"kubepods-burstable-pod1.slice", "container"},
		{"kubepods/besteffort/pod1/1/2/3/4", "container"},
		{"lxc.payload.name", "container"},
		{"systemd-nspawn@name.service", "container"},
		{"docker-" + id[:63] + ".scope", "system"},
		{"docker-" + strings.ToUpper(id) + ".scope", "system"},
		{id[:40] + "g" + id[:40], "system"},
		{"docker.service", "system"},
		{"my-kubepods.slice", "system"},
		{"user.slice/user-1000.slice/session-1.scope", "system"},
	} {
		t.Run(c.cgroup, func(t *testing.T) {
			cgroup := testkit.NewCgroupNamed(t, host, c.cgroup)
			p := testkit.StartProbe(t, host, New(), cgroup.Only())
			w := startIn(t, cgroup, systemPlace)
			target{class: c.class, make: in(systemPlace, "program")}.run(t, p, w, c.class)
			if c.cgroup == id {
				target{make: in(tempPlace, "program")}.run(t, p, w, "suspicious")
				target{make: on("sh", "stdin=tcp4")}.run(t, p, w, "suspicious")
			}
			watch := newWatch(t, p)
			w.Do("forks", strconv.Itoa(rounds), "0")
			watch.expect(t, nil, perClass{c.class: rounds}, nil)
		})
	}
}
