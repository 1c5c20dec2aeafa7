// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"testing"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// lower makes the table believe that a process had nothing.
func lower(t *testing.T, table *probe.Probe, pid int) {
	t.Helper()
	tgid := uint32(pid)
	index := tgid % abi.ProcessSlots
	var slot abi.ProcessSlot
	if err := table.Map("process_slots").Lookup(index, &slot); err == nil && slot.Tgid == tgid {
		slot.Process.SeenEuid, slot.Process.SeenCaps = 1000, 0
		if err := table.Map("process_slots").Put(index, &slot); err != nil {
			t.Fatal(err)
		}
		return
	}
	var entry abi.Process
	if err := table.Map("processes").Lookup(tgid, &entry); err != nil {
		t.Fatal(err)
	}
	entry.SeenEuid, entry.SeenCaps = 1000, 0
	if err := table.Map("processes").Put(tgid, &entry); err != nil {
		t.Fatal(err)
	}
}

// A process that is root although it was last seen as an ordinary user is
// counted when it ends, once.
func TestOther(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, table := startBoth(t, host, New(), cgroup.Only())
	watch := newWatch(t, p)
	for range testkit.Few {
		w := cgroup.Start(t, "privilege")
		w.Do("setup")
		lower(t, table, w.PID())
		w.Stop()
	}
	expect(t, watch, counts{"other": testkit.Few})
}
