// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

func TestMounts(t *testing.T) {
	t.Parallel()
	golden(t, mountsCollector)
}

func TestUnescapeMount(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`/a\040b`: "/a b", `/a\134040`: `/a\040`, `/\011\012\043`: "/\t\n#", `/x\`: `/x\`, `/x\04`: `/x\04`, `/x\400`: `/x\400`, `/x\377`: "/x\xff",
	} {
		if got := unescapeMount(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// The kernel's own answer: statfs and findmnt(8) on real mounts, stacked,
// hidden and with blanks in their names.
func TestMountsKernel(t *testing.T) {
	t.Parallel()
	needsRoot(t, "nsenter", "findmnt")
	pid := netNS(t)
	dir := t.TempDir()
	run(t, pid, `cd `+dir+`
mkdir a 'b c' d
mount -t tmpfs -o nodev,nosuid x a
mount -t tmpfs -o noexec y a
mount -t tmpfs -o nosuid z 'b c'
mount -t tmpfs w d; mkdir d/e; mount -t tmpfs -o noexec v d/e; mount -t tmpfs -o nodev u d`)
	b, err := hostfs.New(hostfs.Paths{}).Procfs.ReadFile(t.Context(), "/"+strconv.Itoa(pid)+"/mountinfo")
	must(t, err)
	table, err := parseMounts(strings.NewReader(string(b)))
	must(t, err)
	for _, name := range []string{"/a", "/b c", "/d", "/d/e"} {
		got := "none"
		if m, ok := table.at(dir + name); ok {
			got = m.source + " " + strings.Join(m.options, ",")
		}
		want := "none"
		out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-m", "findmnt", "-n", "-o", "SOURCE,VFS-OPTIONS", "--mountpoint", dir+name).Output()
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err == nil && name != "/d/e" {
			want = strings.Join(strings.Fields(lines[len(lines)-1]), " ")
		}
		if got != want {
			t.Errorf("%s: %s, findmnt says %s", name, got, want)
		}
	}
	var st unix.Statfs_t
	must(t, unix.Statfs("/proc/"+strconv.Itoa(pid)+"/root"+dir+"/a", &st))
	m, _ := table.at(dir + "/a")
	if noexec := st.Flags&unix.ST_NOEXEC != 0; noexec != slices.Contains(m.options, "noexec") {
		t.Errorf("noexec %v, statfs says %v", !noexec, noexec)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("22 27 0:21 / / rw - ext4 /dev/vda rw\n25 22 0:23 / /tmp rw,nosuid shared:1 - tmpfs a\\040b rw\n")
	f.Add("1 1 0:1 / / rw - x y\n2 2 0:1 / /tmp rw - x y\n3 2 0:1 / /tmp rw - x y\n2 3 0:1 / /tmp rw - x y\n1 2 0:1 / /tmp rw - x y\n")
	f.Fuzz(func(t *testing.T, s string) {
		table, _ := parseMounts(strings.NewReader(s))
		for _, point := range mountpoints {
			if m, ok := table.at(point); ok && m.point != point {
				t.Errorf("%s: %+v", point, m)
			}
		}
	})
}
