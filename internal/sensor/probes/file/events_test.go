// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// access is what a test looks for in a file event.
type access struct {
	path      string
	operation uint8
	severity  event.Severity
}

const (
	read  = uint8(abi.OperationRead)
	wrote = uint8(abi.OperationWrite)
)

// expectAccesses carries out one operation and compares its events.
func expectAccesses(t *testing.T, p *probe.Probe, w *testkit.Process, do []string, want ...access) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testkit.Events(t, p)
	w.Do("repeat", append([]string{"1"}, do...)...)
	got := testkit.Events(t, p)
	if len(got) != len(want) {
		t.Errorf("%q: %d events, want %d: %+v", do, len(got), len(want), got)
		return
	}
	for i, e := range got {
		sum := access{string(e.Name), e.Operation, e.Severity}
		if sum != want[i] || e.Kind != event.File || e.Truncated || e.Weight != 1 {
			t.Errorf("%q: event %d: %+v, want %+v (%s, truncated %t)", do, i, sum, want[i], e.Kind, e.Truncated)
		}
		if e.Serious != (e.Severity == event.Critical && e.Operation == wrote) {
			t.Errorf("%q: serious %t", do, e.Serious)
		}
		if e.TGID != uint32(w.PID()) || e.TID == 0 || e.Parent != uint32(os.Getpid()) || e.UID != 0 {
			t.Errorf("%q: tgid %d, tid %d, parent %d, uid %d", do, e.TGID, e.TID, e.Parent, e.UID)
		}
		if string(e.Executable) != self {
			t.Errorf("%q: executable %q, want %q", do, e.Executable, self)
		}
	}
}

// Each access is one event with the path that was used, from the root of the
// mount namespace; of a name that is gone afterwards, the path it had.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	p, w := setupWith(t, dir, nil, withEvents)
	in := func(name string) string { return filepath.Join(dir, name) }
	odd := in("folder/a\x1b\"\xff\xfe")
	write(t, odd)
	long := in("folder/" + strings.Repeat("n", 60))
	write(t, long)
	for _, c := range []struct {
		do   []string
		want []access
	}{
		{[]string{"open", in("secret")}, []access{{in("secret"), read, event.Critical}}},
		{[]string{"open-write", in("secret")}, []access{{in("secret"), wrote, event.Critical}}},
		{[]string{"open", in("folder/entry")}, []access{{in("folder/entry"), read, event.Warning}}},
		{[]string{"open", in("folder/info")}, []access{{in("folder/info"), read, event.Info}}},
		{[]string{"open", in("link")}, []access{{in("target"), read, event.Info}}},
		{[]string{"open", in("folder/sub/../../secret")}, []access{{in("secret"), read, event.Critical}}},
		{[]string{"open", odd}, []access{{odd, read, event.Warning}}},
		{[]string{"open", in("plain")}, nil},
		{[]string{"link", in("secret"), in("other")}, nil},
		{[]string{"open", in("other")}, []access{{in("other"), read, event.Critical}}},
		{[]string{"unlink", in("other")}, nil},
		{[]string{"chmod", in("secret")}, []access{{in("secret"), wrote, event.Critical}}},
		{[]string{"truncate", in("secret")}, []access{{in("secret"), wrote, event.Critical}}},
		{[]string{"rename", in("plain"), in("writes")}, []access{{in("writes"), wrote, event.Critical}}},
		{[]string{"rename", in("folder/info"), in("away")}, nil}, // info has no write rule
		{[]string{"rename", in("folder/entry"), in("later")}, []access{
			{in("later"), wrote, event.Critical}, {in("folder/entry"), wrote, event.Warning},
		}},
		{[]string{"unlink", in("secret")}, []access{{in("secret"), wrote, event.Critical}}},
		{[]string{"unlink", odd}, []access{{odd, wrote, event.Warning}}},
		{[]string{"unlink", long}, []access{{long, wrote, event.Warning}}},
	} {
		expectAccesses(t, p, w, c.do, c.want...)
	}
}

// A mount that is neither the root's nor the working directory's.
func TestEventsOnAnotherMount(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p, w := setupWith(t, dir, nil, withEvents)
	secret := filepath.Join(dir, "secret")
	expectAccesses(t, p, w, []string{"open", secret}, access{secret, read, event.Critical})
	expectAccesses(t, p, w, []string{"chmod", secret}, access{secret, wrote, event.Critical})
	expectAccesses(t, p, w, []string{"rename", filepath.Join(dir, "plain"), secret}, access{secret, wrote, event.Critical})
	expectAccesses(t, p, w, []string{"unlink", secret}, access{secret, wrote, event.Critical})
}

// In a container the path is the one inside.
func TestEventsInContainer(t *testing.T) {
	dir := t.TempDir()
	p, w := setupWith(t, dir, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, withEvents)
	root := filepath.Join(dir, "root")
	mkdir(t, root)
	w.Do("repeat", "1", "pivot", root, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		do   []string
		want access
	}{
		{[]string{"open", in("secret")}, access{in("secret"), read, event.Critical}},
		{[]string{"open", in("key-1.pem")}, access{in("key-1.pem"), read, event.Info}},
		{[]string{"chmod", in("secret")}, access{in("secret"), wrote, event.Critical}},
		{[]string{"rename", in("plain"), in("secret")}, access{in("secret"), wrote, event.Critical}},
		{[]string{"unlink", in("secret")}, access{in("secret"), wrote, event.Critical}},
	} {
		testkit.Events(t, p)
		w.Do("repeat", append([]string{"1"}, c.do...)...)
		var got []access
		for _, e := range testkit.Events(t, p) {
			if e.Truncated {
				t.Errorf("%q: cut", c.do)
			}
			got = append(got, access{string(e.Name), e.Operation, e.Severity})
		}
		if fmt.Sprint(got) != fmt.Sprint([]access{c.want}) {
			t.Errorf("%q: %+v, want %+v", c.do, got, c.want)
		}
	}
}
