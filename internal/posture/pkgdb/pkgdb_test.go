// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// tree makes a root from path to content.
func tree(t *testing.T, files map[string]string) (*hostfs.Tree, string) {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return hostfs.New(hostfs.Paths{Rootfs: root}).Rootfs, root
}

func stanza(name, arch, status, version string) string {
	s := "Package: " + name + "\nArchitecture: " + arch + "\nVersion: " + version + "\n"
	if status != "" {
		s += "Status: " + status + "\n"
	}
	return s + "Description: x\n .\n Package: not a field\n\n"
}

func TestDpkgStatus(t *testing.T) {
	t.Parallel()
	status := stanza("bash", "amd64", "install ok installed", "5.2") +
		stanza("gone", "amd64", "deinstall ok config-files", "1") +
		stanza("half", "amd64", "install reinstreq half-installed", "1") +
		stanza("held", "amd64", "hold ok installed", "2") +
		stanza("triggers", "amd64", "install ok triggers-pending", "2")
	distroless := map[string]string{
		"var/lib/dpkg/status.d/base":         stanza("base-files", "amd64", "", "12"),
		"var/lib/dpkg/status.d/libc":         stanza("libc6", "amd64", "", "2.36"),
		"var/lib/dpkg/status.d/libc.md5sums": "0123  usr/lib/libc.so.6\n",
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  int
	}{
		"status":     {map[string]string{"var/lib/dpkg/status": status}, 2},
		"distroless": {distroless, 2},
		"empty":      {map[string]string{"var/lib/dpkg/status": ""}, 0},
	} {
		root, _ := tree(t, c.files)
		d, err := Read(t.Context(), root)
		if err != nil || len(d) != 1 || d[0].Type != Dpkg || d[0].Count != c.want {
			t.Errorf("%s: %v, %v, want %d packages", name, d, err, c.want)
		}
	}
	root, _ := tree(t, map[string]string{"etc/passwd": ""})
	if d, err := Read(t.Context(), root); err != nil || len(d) != 0 {
		t.Errorf("no database: %v, %v", d, err)
	}
}

func TestDpkgQueryOracle(t *testing.T) {
	t.Parallel()
	requireTools(t, "dpkg-query")
	root := hostfs.New(hostfs.Paths{}).Rootfs
	var d []Database
	var want int
	// Another process may be installing packages.
	for range 3 {
		out := run(t, "dpkg-query", "-W", "-f", "${db:Status-Status}\n")
		want = len(slices.DeleteFunc(strings.Fields(out), func(s string) bool { return s != "installed" }))
		var err error
		if d, err = Read(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		if d[0].Count == want {
			break
		}
	}
	if d[0].Count != want || d[0].Patched.IsZero() {
		t.Errorf("%v, dpkg-query counts %d", d, want)
	}
	paths := hostBinaries(t)
	got, err := Owners(t.Context(), root, paths)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < len(paths)*95/100 {
		t.Errorf("%d owners of %d files", len(got), len(paths))
	}
	for path, o := range got {
		if !dpkgSays(t, path, o) {
			t.Errorf("%s: %v, dpkg says otherwise", path, o)
		}
	}
}

// hostBinaries are regular files in /usr/bin, at most 60.
func hostBinaries(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/usr/bin/*")
	must(t, err)
	var out []string
	for _, p := range all {
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
			out = append(out, p)
		}
	}
	return out[:min(len(out), 60)]
}

func dpkgSays(t *testing.T, path string, o Owner) bool {
	t.Helper()
	for _, p := range []string{path, strings.TrimPrefix(path, "/usr")} {
		out, err := exec.Command("dpkg-query", "-S", p).Output()
		for line := range strings.Lines(string(out)) {
			if names, _, ok := strings.Cut(line, ": "); err == nil && ok && !strings.HasPrefix(line, "diversion ") && strings.Contains(names, o.Name) {
				return strings.Contains(run(t, "dpkg-query", "-W", "-f", "${Version}\n", o.Name), o.Version)
			}
		}
	}
	return false
}

func TestDpkgOwners(t *testing.T) {
	t.Parallel()
	root, _ := tree(t, map[string]string{
		"var/lib/dpkg/status": stanza("bash", "amd64", "install ok installed", "5.2") +
			stanza("dash", "amd64", "install ok installed", "0.5") +
			stanza("libx", "amd64", "install ok installed", "1:2") + stanza("libx", "i386", "install ok installed", "1:2") +
			stanza("gone", "amd64", "deinstall ok config-files", "1"),
		"var/lib/dpkg/info/bash.list":               "/.\n/bin\n/bin/bash\n/bin/sh\n/usr/sbin/tool\n",
		"var/lib/dpkg/info/dash.list":               "/bin/sh\n/usr/bin/dash\n",
		"var/lib/dpkg/info/libx:amd64.list":         "/usr/lib/x/helper\n",
		"var/lib/dpkg/info/gone.list":               "/usr/bin/gone\n",
		"var/lib/dpkg/info/bash.md5sums":            "0  usr/bin/other\n",
		"var/lib/dpkg/diversions":                   "/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/local\n/usr/bin/local.orig\n:\n",
		"var/lib/dpkg/status.d/x":                   stanza("staticthing", "amd64", "", "9"),
		"var/lib/dpkg/status.d/staticthing":         stanza("staticthing", "amd64", "", "9"),
		"var/lib/dpkg/status.d/none.md5sums":        "0  usr/bin/none\n",
		"var/lib/dpkg/status.d/staticthing.md5sums": "00ff  usr/bin/static\n",
	})
	want := map[string]Owner{
		"/usr/bin/bash":       {Dpkg, "bash", "5.2"},
		"/usr/bin/sh":         {Dpkg, "dash", "0.5"},
		"/usr/bin/sh.distrib": {Dpkg, "bash", "5.2"},
		"/bin/dash":           {Dpkg, "dash", "0.5"},
		"/usr/bin/tool":       {Dpkg, "bash", "5.2"},
		"/usr/lib/x/helper":   {Dpkg, "libx", "1:2"},
		"/usr/bin/static":     {Dpkg, "staticthing", "9"},
	}
	paths := slices.Collect(maps.Keys(want))
	paths = append(paths, "/usr/bin/gone", "/opt/x", "/", "", "/usr/bin/none", "/usr/bin/local")
	got, err := Owners(t.Context(), root, paths)
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func TestDpkgPatched(t *testing.T) {
	t.Parallel()
	zone, err := os.ReadFile("/usr/share/zoneinfo/Asia/Tokyo")
	if err != nil {
		testkit.Missing(t, "needs the package tzdata")
	}
	status := "var/lib/dpkg/status"
	old := "2024-05-01 10:11:12 upgrade a:amd64 1 2\n2024-05-01 10:11:14 status installed a:amd64 2\n"
	removal := "2025-01-01 00:00:00 remove a:amd64 2 <none>\n2025-01-01 00:00:01 upgrade"
	tokyo := time.Date(2024, 5, 1, 1, 11, 12, 0, time.UTC)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write([]byte(old))
	must(t, errors.Join(err, z.Close()))
	for name, c := range map[string]struct {
		files map[string]string
		want  time.Time
	}{
		"log":     {map[string]string{dpkgLog: old}, tokyo},
		"rotated": {map[string]string{dpkgLog: removal, dpkgLog + ".1": "", dpkgLog + ".2.gz": packed.String(), dpkgLog + ".10.gz": "not gzip", dpkgLog + ".bak": "x"}, tokyo},
		"large":   {map[string]string{dpkgLog: strings.Repeat(removal+"\n", 80000) + old}, tokyo},
		"lists":   {map[string]string{dpkgLog: removal, "var/lib/dpkg/info/a.list": "", "var/lib/dpkg/info/a.postinst": ""}, time.Unix(1600000000, 0)},
		"nothing": {nil, time.Time{}},
	} {
		files := map[string]string{status: stanza("a", "amd64", "install ok installed", "2"), "etc/localtime": string(zone)}
		maps.Copy(files, c.files)
		root, dir := tree(t, files)
		_ = os.Chtimes(filepath.Join(dir, "var/lib/dpkg/info/a.list"), time.Unix(1600000000, 0), time.Unix(1600000000, 0))
		d, err := Read(t.Context(), root)
		if err != nil || !d[0].Patched.Equal(c.want) {
			t.Errorf("%s: %v, %v, want %v", name, d, err, c.want)
		}
	}
}

func TestAPKAndPacman(t *testing.T) {
	t.Parallel()
	root, dir := tree(t, map[string]string{
		"lib/apk/db/installed":                    "C:Q1x\nP:busybox\nV:1.36-r2\nF:bin\nM:0:0:755\nR:busybox\nF:\nR:top\n\nP:musl\nV:1.2.4-r1\nF:usr/bin\nR:ldd\n",
		"var/lib/pacman/local/ALPM_DB_VERSION":    "9\n",
		"var/lib/pacman/local/bash-5.2-1/desc":    "%NAME%\nbash\n\n%VERSION%\n5.2-1\n\n%INSTALLDATE%\n1700000000\n",
		"var/lib/pacman/local/bash-5.2-1/files":   "%FILES%\nusr/\nusr/bin/bash\n\n%BACKUP%\netc/bash.bashrc\tx\n",
		"var/lib/pacman/local/zlib-1:1.3-1/desc":  "%NAME%\nzlib\n\n%VERSION%\n1:1.3-1\n\n%INSTALLDATE%\n1600000000\n",
		"var/lib/pacman/local/broken-1/files":     "%FILES%\nusr/bin/broken\n",
		"var/lib/pacman/local/not-a-directory":    "",
		"var/lib/pacman/local/zlib-1:1.3-1/mtree": "x",
	})
	changed := time.Unix(1650000000, 0)
	must(t, os.Chtimes(filepath.Join(dir, "lib/apk/db/installed"), changed, changed))
	d, err := Read(t.Context(), root)
	want := []Database{{APK, 2, changed}, {Pacman, 2, time.Unix(1700000000, 0)}}
	if err != nil || !slices.Equal(d, want) {
		t.Errorf("%v, %v, want %v", d, err, want)
	}
	owners := map[string]Owner{
		"/bin/busybox": {APK, "busybox", "1.36-r2"}, "/usr/bin/ldd": {APK, "musl", "1.2.4-r1"},
		"/top": {APK, "busybox", "1.36-r2"}, "/usr/bin/bash": {Pacman, "bash", "5.2-1"},
	}
	got, err := Owners(t.Context(), root, append(slices.Collect(maps.Keys(owners)), "/usr/bin/broken", "/etc/bash.bashrc"))
	if err != nil || !maps.Equal(got, owners) {
		t.Errorf("%v, %v, want %v", got, err, owners)
	}
}

// Databases that are not what they say are errors that name the file, and cost
// the other managers nothing.
func TestDamaged(t *testing.T) {
	t.Parallel()
	loop := smallBDB()
	loop[1024+16] = 2
	loop[1024+22] = 1
	self := smallSQLite()
	self[512] = pageInterior
	for name, c := range map[string]struct{ file, content string }{
		"empty sqlite":     {"rpmdb.sqlite", ""},
		"text sqlite":      {"rpmdb.sqlite", strings.Repeat("x", 4096)},
		"sqlite to itself": {"rpmdb.sqlite", string(self)},
		"short ndb":        {"Packages.db", string(smallNDB()[:4100])},
		"empty bdb":        {"Packages", ""},
		"bdb chain":        {"Packages", string(loop)},
		"cut bdb":          {"Packages", string(smallBDB()[:1030])},
	} {
		root, _ := tree(t, map[string]string{"var/lib/rpm/" + c.file: c.content, "lib/apk/db/installed": "P:a\n"})
		d, err := Read(t.Context(), root)
		if err == nil || !strings.Contains(err.Error(), "/var/lib/rpm/"+c.file) || len(d) != 1 || d[0].Type != APK {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	// A header cut anywhere is an error or fewer values, never a panic.
	h := header("alpha", 1, "/usr/bin/", "alpha")
	for i := range h {
		if p, err := parseRPMHeader(h[:i]); err == nil {
			t.Errorf("cut at %d: %v", i, p)
		}
	}
}

// A log that cannot be read costs the time, not the count.
func TestDpkgLogDamaged(t *testing.T) {
	t.Parallel()
	root, _ := tree(t, map[string]string{"var/lib/dpkg/status": stanza("a", "amd64", "install ok installed", "2"), dpkgLog + ".1.gz": "not gzip"})
	d, err := Read(t.Context(), root)
	if err == nil || !strings.Contains(err.Error(), "dpkg.log.1.gz") || len(d) != 1 || d[0] != (Database{Type: Dpkg, Count: 1}) {
		t.Errorf("%v, %v", d, err)
	}
}

// A rollback journal means that a transaction is under way.
func TestSQLiteJournal(t *testing.T) {
	t.Parallel()
	root, _ := tree(t, map[string]string{"var/lib/rpm/rpmdb.sqlite": string(smallSQLite()), "var/lib/rpm/rpmdb.sqlite-journal": "x"})
	if d, err := Read(t.Context(), root); err == nil || len(d) != 0 {
		t.Errorf("%v, %v", d, err)
	}
	root, _ = tree(t, map[string]string{"var/lib/rpm/rpmdb.sqlite": string(smallSQLite()), "var/lib/rpm/rpmdb.sqlite-journal": ""})
	if d, err := Read(t.Context(), root); err != nil || len(d) != 1 || d[0].Count != 1 {
		t.Errorf("%v, %v", d, err)
	}
}

func TestManyPackages(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range maxPackages + 1 {
		fmt.Fprintf(&b, "P:p%d\n\n", i)
	}
	root, _ := tree(t, map[string]string{"lib/apk/db/installed": b.String()})
	if d, err := Read(t.Context(), root); !errors.Is(err, hostfs.ErrTooLarge) {
		t.Errorf("%v, %v", d, err)
	}
}
