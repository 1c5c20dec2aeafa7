// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/process"
	"security-exporter/internal/testkit"
)

// rounds is how often each case is made to happen.
const rounds = testkit.Rounds

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]testkit.Worker{"privilege": worker})
}

// startBoth starts the probe and then the process probe, which keeps the table
// of what was last seen.
func startBoth(t *testing.T, host *probe.Host, spec *probe.Spec, settings probe.Settings) (p, table *probe.Probe) {
	t.Helper()
	shared := probe.NewShared()
	t.Cleanup(func() { _ = shared.Close() })
	p = testkit.StartShared(t, host, shared, spec, settings)
	table = testkit.StartShared(t, host, shared, process.New(), settings)
	if s := table.Status(); !s.Up() {
		t.Fatalf("%s: %s, %s", table.Spec().Name(), s.State, s.Reason)
	}
	return p, table
}

// counts are expected changes: calls by "type result", gains by "via".
type counts map[string]int64

func (c counts) plus(name string, n int64) counts {
	c[name] += n
	return c
}

func expect(t *testing.T, watch *testkit.Watch, want counts) {
	t.Helper()
	calls, gains := map[int]int64{}, map[int]int64{}
	for name, n := range want {
		kind, result, isCall := strings.Cut(name, " ")
		if !isCall {
			gains[slices.Index(abi.Gains, name)] = n
			continue
		}
		calls[slices.Index(abi.Privileges, kind)*len(abi.Results)+slices.Index(abi.Results, result)] = n
	}
	watch.Expect(t, map[string]map[int]int64{"privilege_escalation_total": calls, "privilege_gained_total": gains})
}

func newWatch(t *testing.T, p *probe.Probe) *testkit.Watch {
	t.Helper()
	return testkit.NewWatch(t, p, "privilege_escalation_total", "privilege_gained_total")
}

// kinds are the counter each call is counted under.
func kind(name string) string {
	switch {
	case name == "capset":
		return "capset"
	case strings.HasSuffix(name, "uid"):
		return "setuid"
	case strings.HasSuffix(name, "gid"), name == "setgroups":
		return "setgid"
	}
	return ""
}

// callCounts is what a list of calls must add to the counters.
func callCounts(want counts, calls []string, times int64) {
	for _, text := range calls {
		c := parseCall(text)
		if c.query || kind(c.name) == "" {
			continue
		}
		result := "success"
		if c.fails {
			result = "failure"
		}
		want.plus(kind(c.name)+" "+result, times)
	}
}

const ordinary = "setresgid:1000:1000:1000 setresuid:1000:1000:1000"

type callCase struct {
	name string
	// once in each thread, then each in every round
	once, each string
	// gains in each round
	gains counts
}

// make has a worker make the calls, rounds times in all.
func (c callCase) make(w *testkit.Process, threads int) {
	w.Do("calls", strconv.Itoa(threads), strconv.Itoa(rounds/threads), c.once, c.each)
}

// counts are what that adds. Nothing is counted as other, also when the worker ends.
func (c callCase) counts(threads int) counts {
	out := counts{}
	callCounts(out, strings.Fields(c.once), int64(threads))
	callCounts(out, strings.Fields(c.each), rounds)
	for how, times := range c.gains {
		out.plus(how, times*rounds)
	}
	return out
}

var callCases = []callCase{
	{name: "setuid", each: "setuid:0"},
	{name: "setreuid", each: "setreuid:0:0"},
	{name: "setresuid", each: "setresuid:0:0:0"},
	{name: "setresuid that changes nothing", each: "setresuid:-1:-1:-1"},
	{name: "setfsuid", each: "setfsuid:0"},
	{name: "setgid", each: "setgid:0"},
	{name: "setregid", each: "setregid:0:0"},
	{name: "setresgid", each: "setresgid:0:0:0"},
	{name: "setfsgid", each: "setfsgid:0 setfsgid:7"},
	{name: "setgroups", each: "setgroups:0:0"},
	{name: "capset", each: "capset:same"},
	{name: "queries", each: "?setfsuid:-1 ?setfsgid:-1"},

	{name: "setuid refused", once: ordinary, each: "!setuid:0"},
	{name: "setreuid refused", once: ordinary, each: "!setreuid:0:0"},
	{name: "setresuid refused", once: ordinary, each: "!setresuid:0:0:0"},
	{name: "setfsuid refused", once: ordinary, each: "!setfsuid:0 setfsuid:1000"},
	{name: "setgid refused", once: ordinary, each: "!setgid:0"},
	{name: "setregid refused", once: ordinary, each: "!setregid:0:0"},
	{name: "setresgid refused", once: ordinary, each: "!setresgid:0:0:0"},
	{name: "setfsgid refused", once: ordinary, each: "!setfsgid:0 setfsgid:1000"},
	{name: "setgroups refused", once: ordinary, each: "!setgroups:0:0"},
	{name: "capset refused", once: ordinary, each: "!capset:raise"},
	{name: "queries of an ordinary user", once: ordinary, each: "?setfsuid:-1 ?setfsgid:-1"},

	{name: "bad arguments", each: "!setuid:-1 !setgid:-1 !setgroups:70000:0 !capset:fault"},
	{name: "seccomp", once: "seccomp:setuid seccomp:setfsuid seccomp:setgid",
		each: "!setuid:0 !setfsuid:0 !setgid:0 setreuid:0:0"},

	{name: "root for a while", each: "setresuid:-1:1000:-1 setresuid:-1:0:-1", gains: counts{"set_id": 1}},
	{name: "root by setreuid", each: "setreuid:0:1000 setreuid:0:0", gains: counts{"set_id": 1}},
	{name: "root by setuid", each: "setreuid:0:1000 setuid:0", gains: counts{"set_id": 1}},
	{name: "file system capabilities", each: "setfsuid:1000 setfsuid:0", gains: counts{"set_id": 1}},
	{name: "capabilities dropped and raised", each: "capset:drop capset:full", gains: counts{"capset": 1}},
	{name: "an id that is not root", once: "setresuid:1000:1000:1001",
		each: "setresuid:-1:1001:-1 setresuid:-1:1000:-1"},
}

func TestCalls(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	for _, threads := range []int{1, 4} {
		for _, c := range callCases {
			t.Run(strconv.Itoa(threads)+" threads/"+c.name, func(t *testing.T) {
				skipRefused(t, p, c.name)
				w := cgroup.Start(t, "privilege")
				watch := newWatch(t, p)
				c.make(w, threads)
				w.Stop()
				expect(t, watch, c.counts(threads))
			})
		}
	}
	testkit.ExpectEmpty(t, p)
	var tables []string
	for _, table := range p.Spec().Tables(p) {
		tables = append(tables, fmt.Sprint(table.Name, " ", table.Capacity))
	}
	if want := []string{"pending 1024", "threads 2048"}; !slices.Equal(tables, want) {
		t.Errorf("tables %q, want %q", tables, want)
	}
}

// scattered is an id map of nearly as many extents of one id as fit, in no
// order, but for root, who stays root.
func scattered() []syscall.SysProcIDMap {
	const n, step = 300, 7919 // a prime
	out := make([]syscall.SysProcIDMap, n)
	for i := range out {
		out[i] = syscall.SysProcIDMap{ContainerID: i * step % n * 2, HostID: 200000 + i, Size: 1}
	}
	out[0].HostID = 0
	return out
}

// setfsuid and setfsgid say nothing of their result: the id is looked for in
// the map of the caller's user namespace, whatever extent it is in.
func TestScatteredIDs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	for _, extents := range []int{1, 5, 6, 300} {
		t.Run(strconv.Itoa(extents)+" extents", func(t *testing.T) {
			ids := scattered()[:extents]
			w := cgroup.StartWith(t, "privilege", &syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			})
			defer w.Stop()
			var each []string
			for _, id := range ids {
				// even ids are there, odd ones are not
				each = append(each, fmt.Sprintf("setfsuid:%d", id.ContainerID), fmt.Sprintf("!setfsuid:%d", id.ContainerID+1),
					fmt.Sprintf("setfsgid:%d", id.ContainerID), fmt.Sprintf("!setfsgid:%d", id.ContainerID+1))
			}
			watch := newWatch(t, p)
			w.Do("calls", "1", "2", "", strings.Join(each, " "))
			w.Stop()
			want := counts{}
			callCounts(want, each, 2)
			expect(t, watch, want)
		})
	}
}

// A full table of threads costs the calls nothing; what was last seen of the
// group is compared with instead, which had root all the time.
func TestThreadTableFull(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	settings := cgroup.Only()
	settings.MaxEntries = map[string]uint32{"threads": 1}
	p, _ := startBoth(t, host, New(), settings)
	const nobody = 1 << 30
	if err := p.Map("threads").Put(uint32(nobody), make([]byte, p.Map("threads").ValueSize())); err != nil {
		t.Fatal(err)
	}
	w := cgroup.Start(t, "privilege")
	watch := newWatch(t, p)
	evicted := testkit.NewWatch(t, p, "map_evictions")
	each := []string{"setresuid:-1:1000:-1", "setresuid:-1:0:-1", "!setuid:-1", "?setfsuid:-1"}
	w.Do("calls", "2", strconv.Itoa(rounds/2), "", strings.Join(each, " "))
	want := counts{}
	callCounts(want, each, rounds)
	expect(t, watch, want)
	evicted.Expect(t, map[string]map[int]int64{"map_evictions": {int(abi.TableThreads): rounds}})
}

func TestUserNamespaces(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	for name, want := range map[string]counts{
		"clone":   {"userns": rounds},
		"unshare": {"userns": rounds},
		// ids change inside the namespace, which is no gain
		"mapped": {"userns": rounds, "setuid success": rounds, "setgid success": 2 * rounds},
	} {
		t.Run(name, func(t *testing.T) {
			w := cgroup.Start(t, "privilege")
			defer w.Stop()
			watch := newWatch(t, p)
			w.Do("child", strconv.Itoa(rounds), name)
			expect(t, watch, want)
		})
	}
}
