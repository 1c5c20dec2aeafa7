// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
	"security-exporter/internal/testkit"
)

// hungMount mounts a FUSE file system that never answers.
func hungMount(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		testkit.Missing(t, "/dev/fuse is missing: load the module fuse: %v", err)
	}
	// Closing it is what ends all calls that hang.
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, os.MkdirAll(dir, 0o755))
	must(t, unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// Homes on a server that has gone cost the one check that looks at them, which
// names one of them, however many there are and however often it runs.
func TestHungHomes(t *testing.T) {
	t.Parallel()
	var passwd strings.Builder
	passwd.WriteString("root:x:0:0::/root:/bin/sh\n")
	host := passwdGood.with(files{"etc/ssh/sshd_config": "X11Forwarding no\n", "proc": "dir"})
	for i := range 12 {
		fmt.Fprintf(&passwd, "u%d:x:%d:1000::/home/u%d:/bin/bash\n", i, 1000+i, i)
	}
	root := host.with(files{"etc/passwd": passwd.String()}).write(t)
	for i := range 12 {
		hungMount(t, filepath.Join(root, fmt.Sprintf("home/u%d", i)))
	}
	spec := checksWith(noAudit)
	spec.defaults()
	in := fixtureInput(root, Settings{})
	for run := range 5 {
		batch := metric.NewBatch(spec.MaxSeries)
		start := time.Now()
		err := spec.Collect(t.Context(), in, batch)
		if took := time.Since(start); took > spec.Deadline {
			t.Fatalf("run %d took %s of %s", run, took, spec.Deadline)
		}
		if err == nil || !strings.Contains(err.Error(), "check accounts_home: stat /home/u0: ") {
			t.Errorf("run %d: %v", run, err)
		}
		got := make(map[string]float64)
		for _, f := range gather(t, batchCollector{spec.Metrics, batch}) {
			for _, m := range f.Metric {
				got[f.GetName()+" "+m.Label[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
		expect(t, got, map[string]float64{
			"linux_security_check_error accounts_home": 1, "linux_security_check_passed sshd_x11": 1,
			"linux_security_check_passed accounts_root_only": 1, "linux_security_check_error sshd_x11": 0,
		})
		absent(t, got, "linux_security_check_passed accounts_home")
	}
}

// A watched directory that does not answer delays neither the first run nor,
// once that is known, what is seen of other files.
func TestWatchHung(t *testing.T) {
	t.Parallel()
	w := watch(t, func(dir string) {
		must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
		put(t, filepath.Join(dir, "etc/conf"), "1")
		hungMount(t, filepath.Join(dir, "etc/hung.d"))
	}, "/etc/conf", "/etc/hung.d/*", "/etc/hung.d/a")
	select {
	case <-w.runs: // as soon as the other file is watched
	case <-time.After(20 * time.Second):
		t.Fatal("the other file is not watched")
	}
	put(t, w.path("etc/conf"), "2")
	w.expectRun(t, "a change of the other file")
	w.count(t, "/etc/conf", 1)
	w.count(t, "/etc/hung.d/a", 0)
}
