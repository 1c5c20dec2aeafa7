// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rpmdb "github.com/anchore/go-rpmdb/pkg"
	_ "github.com/glebarez/go-sqlite" // the driver that go-rpmdb asks for by name

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// The databases of real distributions that come with go-rpmdb, read by that
// library and by us: CentOS 5 to 8 and UBI 8 on s390x (Berkeley DB of both
// byte orders), Fedora, Rocky, Oracle and CBL-Mariner (sqlite), SLE 15 (ndb).
func TestRPMRealDatabases(t *testing.T) {
	t.Parallel()
	data := libraryData(t)
	for distribution, file := range map[string]string{
		"centos5-plain": "Packages", "centos6-plain": "Packages", "centos7-plain": "Packages",
		"centos8-modularitylabel": "Packages", "ubi8-s390x": "Packages", "fedora35": "rpmdb.sqlite",
		"rockylinux-9": "rpmdb.sqlite", "oraclelinux-9": "rpmdb.sqlite", "cbl-mariner-2.0": "rpmdb.sqlite",
		"sle15-bci": "Packages.db",
	} {
		t.Run(distribution, func(t *testing.T) {
			t.Parallel()
			source := filepath.Join(data, distribution, file)
			root := t.TempDir()
			place(t, source, filepath.Join(root, "var/lib/rpm", file))
			want := libraryPackages(t, source)
			compareRPM(t, root, want)
		})
	}
}

// libraryData is where the module cache has the test data of go-rpmdb: beside
// the source that the compiler saw.
func libraryData(t *testing.T) string {
	t.Helper()
	pc := runtime.FuncForPC(reflect.ValueOf(rpmdb.Open).Pointer())
	file, _ := pc.FileLine(pc.Entry())
	dir := filepath.Join(filepath.Dir(file), "testdata")
	if _, err := os.Stat(dir); err != nil {
		testkit.Missing(t, "the test data of go-rpmdb is not in the module cache: %v", err)
	}
	return dir
}

func libraryPackages(t *testing.T, file string) []*rpmdb.PackageInfo {
	t.Helper()
	db, err := rpmdb.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	list, err := db.ListPackages()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func compareRPM(t *testing.T, root string, want []*rpmdb.PackageInfo) {
	t.Helper()
	tree := hostfs.New(hostfs.Paths{Rootfs: root}).Rootfs
	databases, err := Read(t.Context(), tree)
	if err != nil || len(databases) != 1 {
		t.Fatalf("%v, %v", databases, err)
	}
	newest := 0
	owners := make(map[string]Owner)
	for _, p := range want {
		if p.Name != gpgKey {
			newest = max(newest, p.InstallTime)
		}
		names, err := p.InstalledFileNames()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if strings.Contains(n, "/bin/") || strings.Contains(n, "/sbin/") {
				owners[n] = Owner{RPM, p.Name, evr(p)}
			}
		}
	}
	if d := (Database{RPM, len(want), time.Unix(int64(newest), 0)}); databases[0] != d {
		t.Errorf("%v, the library says %v", databases[0], d)
	}
	got, err := Owners(t.Context(), tree, slices.Collect(maps.Keys(owners)))
	if err != nil {
		t.Fatal(err)
	}
	if len(owners) < 3 || len(got) != len(owners) {
		t.Errorf("%d owners, the library has %d", len(got), len(owners))
	}
	for path, o := range got {
		// Two packages may share a path; either is right.
		if w := owners[path]; o != w && o.Version != w.Version && !sharesPath(want, path, o) {
			t.Errorf("%s: %v, the library says %v", path, o, w)
		}
	}
}

func evr(p *rpmdb.PackageInfo) string {
	v := p.Version + "-" + p.Release
	if e := p.EpochNum(); e > 0 {
		v = strconv.Itoa(e) + ":" + v
	}
	return v
}

func sharesPath(list []*rpmdb.PackageInfo, path string, o Owner) bool {
	for _, p := range list {
		if names, err := p.InstalledFileNames(); err == nil && p.Name == o.Name && evr(p) == o.Version && slices.Contains(names, path) {
			return true
		}
	}
	return false
}

func place(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
