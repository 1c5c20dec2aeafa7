// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/sensor/event"
)

// nobody is a /proc without processes.
func nobody(t testing.TB) *Executables {
	return NewExecutables(hostfs.New(hostfs.Paths{Procfs: t.TempDir()}), nil)
}

func ran(at time.Duration, tgid, parent uint32, comm, path string) *event.Event {
	return &event.Event{
		Kind: event.Exec, Monotonic: at, TGID: tgid, TID: tgid, Parent: parent, CgroupID: 7, Weight: 1,
		Comm: []byte(comm), Executable: []byte(path),
	}
}

func connects(at time.Duration, tgid, parent uint32, comm string) *event.Event {
	e := ran(at, tgid, parent, comm, "")
	e.Kind, e.Executable = event.Connect, nil
	return e
}

func (x *Executables) of(e *event.Event) string {
	x.Fill(e, nil)
	return string(e.Executable)
}

// TestExecutablesOfTheGone: nobody can be asked, so only what is sure is said.
func TestExecutablesOfTheGone(t *testing.T) {
	t.Parallel()
	elsewhere := connects(9, 10, 1, "curl")
	elsewhere.CgroupID++
	for name, c := range map[string]struct {
		known []*event.Event
		e     *event.Event
		want  string
	}{
		"exec":               {[]*event.Event{ran(5, 10, 1, "curl", "/a")}, connects(9, 10, 1, "curl"), "/a"},
		"second exec":        {[]*event.Event{ran(5, 10, 1, "sh", "/sh"), ran(6, 10, 1, "curl", "/a")}, connects(9, 10, 1, "curl"), "/a"},
		"nothing known":      {nil, connects(9, 10, 1, "curl"), ""},
		"other name":         {[]*event.Event{ran(5, 10, 1, "sh", "/sh")}, connects(9, 10, 1, "curl"), ""},
		"number used again":  {[]*event.Event{ran(5, 10, 1, "curl", "/a")}, elsewhere, ""},
		"parent ended":       {[]*event.Event{ran(5, 10, 4, "curl", "/a")}, connects(9, 10, 1, "curl"), "/a"},
		"fork":               {[]*event.Event{ran(5, 9, 1, "nginx", "/n")}, connects(9, 10, 9, "nginx"), "/n"},
		"fork and lost exec": {[]*event.Event{ran(5, 9, 1, "sh", "/sh")}, connects(9, 10, 9, "curl"), ""},
		"execs after":        {[]*event.Event{ran(11, 10, 1, "curl", "/a")}, connects(9, 10, 1, "curl"), ""},
		"same set":           {[]*event.Event{ran(5, 10+imageSets, 1, "curl", "/a")}, connects(9, 10, 1, "curl"), ""},
	} {
		x := nobody(t)
		for _, e := range c.known {
			x.Fill(e, nil)
		}
		if got := x.of(c.e); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if s := x.Stats(); (s.Gone == 1) != (c.want == "") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// An exec that comes late, from the other ring, is found.
func TestExecutablesLookBehind(t *testing.T) {
	t.Parallel()
	x := nobody(t)
	x.behind = func() { x.Fill(ran(5, 10, 1, "evil", "/tmp/evil"), nil) }
	if got := x.of(connects(9, 10, 1, "evil")); got != "/tmp/evil" {
		t.Errorf("%q", got)
	}
	// An older event does not take the newer exec away.
	x.Fill(ran(3, 10, 1, "sh", "/sh"), nil)
	if got := x.of(connects(9, 10, 1, "evil")); got != "/tmp/evil" {
		t.Errorf("%q", got)
	}
}

// TestExecutablesAsks asks the real /proc about this very process.
func TestExecutablesAsks(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(string(comm), "\n")
	now, _ := bothClocks()
	for _, c := range []struct {
		name string
		e    *event.Event
		want string
	}{
		{"alive", connects(now, uint32(os.Getpid()), 1, name), self},
		{"renamed since", connects(now, uint32(os.Getpid()), 1, "somebody"), ""},
		{"number used again", connects(time.Second, uint32(os.Getpid()), 1, name), ""},
	} {
		x := NewExecutables(hostfs.New(hostfs.Paths{}), nil)
		if got := x.of(c.e); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := x.Stats().Changed; (got == 1) != (c.want == "") {
			t.Errorf("%s: %d changed", c.name, got)
		}
	}
	// For a second, threads of any name are its own.
	x := NewExecutables(hostfs.New(hostfs.Paths{}), nil)
	x.of(connects(now, uint32(os.Getpid()), 1, name))
	x.root = hostfs.New(hostfs.Paths{Procfs: t.TempDir()})
	if got := x.of(connects(now+believed-1, uint32(os.Getpid()), 1, "thread")); got != self {
		t.Errorf("%q within a second", got)
	}
	if got := x.of(connects(now+believed+1, uint32(os.Getpid()), 1, "thread")); got != "" {
		t.Errorf("%q after a second", got)
	}
}

// TestExecutablesAreBounded: a full set lets go of who was quiet longest, and
// asking has its budget.
func TestExecutablesAreBounded(t *testing.T) {
	t.Parallel()
	x := nobody(t)
	for i := range uint32(imageWays) {
		x.Fill(ran(time.Duration(5+i), 10+i*imageSets, 1, "a", "/a"), nil)
	}
	x.of(connects(20, 10, 1, "a"))
	x.Fill(ran(21, 10+imageWays*imageSets, 1, "a", "/b"), nil)
	if got := x.Stats().Evicted; got != 1 {
		t.Errorf("%d evicted", got)
	}
	for tgid, want := range map[uint32]string{10: "/a", 10 + imageWays*imageSets: "/b", 10 + 2*imageSets: "/a"} {
		if got := x.of(connects(30, tgid, 1, "a")); got != want {
			t.Errorf("%d: %q, want %q", tgid, got, want)
		}
	}
	clock := &at{time.Now()}
	x.budget = budget{now: clock.time, at: clock.now, left: -time.Second, started: true}
	x.of(connects(40, 5000, 1, "a"))
	if got := x.Stats().Budget; got != 1 {
		t.Errorf("%d over the budget", got)
	}
	long := strings.Repeat("x", 600)
	x.Fill(ran(50, 77, 1, "a", long), nil) // cannot happen; must not harm
	e := connects(51, 77, 1, "a")
	if got := x.of(e); len(got) != 512 || !e.Truncated {
		t.Errorf("%d bytes, truncated: %v", len(got), e.Truncated)
	}
}

func TestExecutablesDoNotAllocate(t *testing.T) {
	x := nobody(t)
	room := make([]byte, 0, 512)
	run := ran(5, 10, 1, "curl", filepath.Join("/usr/bin", "curl"))
	e := connects(9, 10, 1, "curl")
	if n := testing.AllocsPerRun(100, func() {
		room = x.Fill(run, room)
		e.Executable = nil
		room = x.Fill(e, room)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(e.Executable) != "/usr/bin/curl" {
		t.Errorf("%q", e.Executable)
	}
}

func BenchmarkExecutables(b *testing.B) {
	x := nobody(b)
	var room []byte
	x.Fill(ran(5, 10, 1, "curl", "/usr/bin/curl"), nil)
	e := connects(9, 10, 1, "curl")
	b.ReportAllocs()
	for b.Loop() {
		e.Executable = nil
		room = x.Fill(e, room)
	}
}
