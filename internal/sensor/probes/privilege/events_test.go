// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/testkit"
)

// change is what these tests look for in an event.
type change struct {
	kind             event.Kind
	call, result     uint8
	gain             uint8
	oldID, newID     uint32
	oldCaps, newCaps uint64
	executable       string
	serious          bool
	severity         event.Severity
}

func changes(t *testing.T, events []event.Event) []string {
	t.Helper()
	var out []string
	for _, e := range events {
		if e.Probe != uint8(abi.ProbePrivilege) {
			continue // the exec by itself
		}
		if e.Weight != 1 || e.Truncated || e.TGID == 0 || e.Parent == 0 {
			t.Errorf("%s: weight %d, truncated %t, tgid %d, parent %d", e.Kind, e.Weight, e.Truncated, e.TGID, e.Parent)
		}
		out = append(out, fmt.Sprintf("%+v", change{
			e.Kind, e.Call, e.Result, e.Gain, e.OldID, e.NewID, e.OldCaps, e.NewCaps, string(e.Executable), e.Serious, e.Severity,
		}))
	}
	return out
}

// effective are the capabilities that the tests have.
func effective(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^CapEff:\s*([0-9a-f]+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no capabilities in %s", text)
	}
	caps, err := strconv.ParseUint(string(found[1]), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return caps
}

// A gain says what there was before and after, and which program gave it.
func TestGainEvents(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), testkit.WithEvents(cgroup.Only()))
	folder := makePrograms(t, false)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := effective(t)
	w := cgroup.Start(t, "privilege")
	setuid, bit, caps := uint8(abi.PrivilegeSetuid), uint8(abi.PrivilegeSuidExec), uint8(abi.PrivilegeFilecapExec)
	suidRoot, withCaps := filepath.Join(folder, "suid-root"), filepath.Join(folder, "caps")
	for _, c := range []struct {
		name   string
		action []string
		want   []change // serious ones first
	}{
		{"drop", []string{"setup", "setresuid:-1:1000:-1"}, []change{
			{event.Privilege, setuid, 0, 0, 0, 1000, 0, 0, self, false, event.Info},
		}},
		{"regain", []string{"setup", "setresuid:-1:0:-1"}, []change{
			{event.Gain, 0, 0, uint8(abi.GainSetID), 1000, 0, 0, all, self, true, event.Critical},
			{event.Privilege, setuid, 0, 0, 1000, 0, 0, 0, self, false, event.Info},
		}},
		{"new user namespace", []string{"child", "1", "clone"}, []change{
			{event.Gain, 0, 0, uint8(abi.GainUserns), 0, 0, all, all, self, true, event.Critical},
		}},
		{"drop for good", []string{"setup", "setresuid:1000:1000:1000"}, []change{
			{event.Privilege, setuid, 0, 0, 0, 1000, 0, 0, self, false, event.Info},
		}},
		{"refused", []string{"setup", "!setresuid:0:0:0"}, []change{
			{event.Privilege, setuid, 1, 0, 1000, 1000, 0, 0, self, false, event.Warning},
		}},
		{"suid", []string{"exec", "1", suidRoot}, []change{
			{event.Gain, 0, 0, uint8(abi.GainSuidExec), 1000, 0, 0, all, suidRoot, true, event.Critical},
			{event.Privilege, bit, 0, 0, 1000, 0, 0, 0, suidRoot, false, event.Info},
		}},
		{"file capabilities", []string{"exec", "1", withCaps}, []change{
			{event.Gain, 0, 0, uint8(abi.GainFilecapExec), 1000, 1000, 0, netRaw, withCaps, true, event.Critical},
			{event.Privilege, caps, 0, 0, 1000, 1000, 0, 0, withCaps, false, event.Info},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			testkit.Events(t, p)
			w.Do(c.action[0], c.action[1:]...)
			events := testkit.Events(t, p)
			for i, e := range events {
				// a new namespace has them all, also those that the tests lack
				if e.Gain == uint8(abi.GainUserns) && e.NewCaps&all == all {
					events[i].NewCaps = all
				}
			}
			var want []string
			for _, one := range c.want {
				want = append(want, fmt.Sprintf("%+v", one))
			}
			if got := changes(t, events); !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}
