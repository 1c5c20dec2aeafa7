// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A socket without a process is looked for again, at growing intervals, and
// one that is found stays found until its descriptor leads elsewhere.
func TestOwnersLookAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fds := filepath.Join(dir, "proc/7/fd")
	must(t, os.MkdirAll(fds, 0o755))
	must(t, os.Symlink("/bin/a", filepath.Join(dir, "proc/7/exe")))
	in := fixtureInput(dir, Settings{})
	now := fixtureNow
	in.Now = func() time.Time { return now }
	o := owners{}
	find := func() owned {
		t.Helper()
		got, err := o.find(t.Context(), in, []socket{{inode: 99}})
		must(t, err)
		return got
	}
	find()
	now = now.Add(recheck)
	find() // in vain: the next time is twice as far
	must(t, os.Symlink("socket:[99]", filepath.Join(fds, "3")))
	now = now.Add(recheck)
	if got := find(); len(got.pids) != 0 {
		t.Errorf("looked for again too early: %v", got)
	}
	now = now.Add(recheck)
	if got := find(); got.pids[99] != 7 || len(got.same) != 0 {
		t.Errorf("%+v, want a new owner 7", got)
	}
	if got := find(); got.pids[99] != 7 || got.same[7] != "/bin/a" {
		t.Errorf("%+v, want 7 as before", got)
	}
	must(t, os.Remove(filepath.Join(fds, "3")))
	must(t, os.Symlink("socket:[98]", filepath.Join(fds, "3")))
	if got := find(); len(got.pids) != 0 {
		t.Errorf("%+v, want no owner", got)
	}
}
