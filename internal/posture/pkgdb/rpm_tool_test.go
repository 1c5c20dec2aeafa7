// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// Databases made by rpm(8) itself, with the answers of rpm -qa. Debian's rpm
// writes sqlite and reads Berkeley DB; for ndb see TestRPMRealDatabases.
func TestRPMTool(t *testing.T) {
	t.Parallel()
	requireTools(t, "rpm", "rpmbuild", "python3", "db5.3_load")
	packages := buildRPMs(t)
	t.Run("sqlite", func(t *testing.T) { compareSQLite(t, packages) })
	t.Run("write-ahead log", func(t *testing.T) { compareWAL(t, packages) })
	t.Run("Berkeley DB", func(t *testing.T) { compareBerkeley(t, packages) })
}

type tool func(args ...string) string

func rpmOn(t *testing.T, db, backend string) tool {
	return func(args ...string) string {
		t.Helper()
		return run(t, "rpm", append([]string{"--dbpath", db, "--define", "_db_backend " + backend, "--nosignature"}, args...)...)
	}
}

func compareSQLite(t *testing.T, packages []string) {
	root := t.TempDir()
	rpm := rpmOn(t, filepath.Join(root, "usr/lib/sysimage/rpm"), "sqlite")
	rpm(append([]string{"-i", "--nodeps", "--justdb"}, packages...)...)
	rpm("-e", "--nodeps", "--justdb", "gamma")
	compareWithTool(t, root, rpm)
}

// A log holds what the file does not: a second connection keeps it from being
// merged.
func compareWAL(t *testing.T, packages []string) {
	root := t.TempDir()
	db := filepath.Join(root, "var/lib/rpm")
	rpm := rpmOn(t, db, "sqlite")
	rpm("-i", "--nodeps", "--justdb", packages[0])
	hold(t, exec.Command("python3", "-c", `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("pragma journal_mode=wal")
c.execute("begin"); c.execute("select count(*) from Packages").fetchall()
print("ready", flush=True); sys.stdin.read()`, filepath.Join(db, "rpmdb.sqlite")))
	rpm("-i", "--nodeps", "--justdb", packages[1])
	log := filepath.Join(db, "rpmdb.sqlite-wal")
	if st, err := os.Stat(log); err != nil || st.Size() == 0 {
		t.Fatalf("no write-ahead log: %v", err)
	}
	compareWithTool(t, root, rpm)

	must(t, os.Rename(log, log+".away"))
	d, err := Read(t.Context(), hostfs.New(hostfs.Paths{Rootfs: root}).Rootfs)
	if err != nil || d[0].Count != 1 {
		t.Errorf("without the log: %v, %v, want 1 package", d, err)
	}
}

// Berkeley DB by its own loader, in both byte orders, from headers that rpm
// wrote: rpm 4.18 reads the format and no longer writes it.
func compareBerkeley(t *testing.T, packages []string) {
	made := t.TempDir()
	rpmOn(t, made, "sqlite")(append([]string{"-i", "--nodeps", "--justdb"}, packages...)...)
	for _, order := range []string{"1234", "4321"} {
		root := t.TempDir()
		db := filepath.Join(root, "var/lib/rpm")
		must(t, os.MkdirAll(db, 0o755))
		loadBerkeley(t, filepath.Join(made, "rpmdb.sqlite"), filepath.Join(db, "Packages"), order)
		compareWithTool(t, root, rpmOn(t, db, "bdb_ro"))
	}
}

func loadBerkeley(t *testing.T, from, to, order string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	var byteOrder binary.ByteOrder = binary.LittleEndian
	if order == "4321" {
		byteOrder = binary.BigEndian
	}
	var dump strings.Builder
	fmt.Fprintf(&dump, "VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\ndb_lorder=%s\nHEADER=END\n", order)
	n := uint32(0)
	key := make([]byte, 4)
	pair := func(value []byte) {
		byteOrder.PutUint32(key, n)
		fmt.Fprintf(&dump, " %s\n %s\n", hex.EncodeToString(key), hex.EncodeToString(value))
		n++
	}
	pair([]byte{9, 0, 0, 0})
	must(t, eachSQLite(newCounting(bytes.NewReader(b), int64(len(b))), nil, func(header []byte) error {
		pair(header)
		return nil
	}))
	dump.WriteString("DATA=END\n")
	load := exec.Command("db5.3_load", to)
	load.Stdin = strings.NewReader(dump.String())
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("db5.3_load: %v: %s", err, out)
	}
}

// compareWithTool compares count, newest time and owners with what rpm says.
func compareWithTool(t *testing.T, root string, rpm tool) {
	t.Helper()
	tree := hostfs.New(hostfs.Paths{Rootfs: root}).Rootfs
	d, err := Read(t.Context(), tree)
	if err != nil || len(d) != 1 || d[0].Type != RPM {
		t.Fatalf("%v, %v", d, err)
	}
	lines := strings.Fields(rpm("-qa", "--qf", "%{INSTALLTIME}\n"))
	newest := ""
	for _, l := range lines {
		newest = max(newest, l)
	}
	if d[0].Count != len(lines) || fmt.Sprint(d[0].Patched.Unix()) != newest {
		t.Errorf("%v, rpm has %d packages, the newest from %s", d[0], len(lines), newest)
	}
	want := make(map[string]Owner)
	for line := range strings.Lines(rpm("-qa", "--qf", "[%{FILENAMES} %{=NAME} %{=EPOCH}:%{=VERSION}-%{=RELEASE}\n]")) {
		f := strings.Fields(line)
		want[f[0]] = Owner{RPM, f[1], strings.TrimPrefix(f[2], "(none):")}
	}
	got, err := Owners(t.Context(), tree, slices.Collect(maps.Keys(want)))
	if err != nil || len(want) == 0 || !maps.Equal(got, want) {
		t.Errorf("%v, rpm says %v, %v", got, want, err)
	}
}

// buildRPMs builds three packages: one plain, one with an epoch and a long
// file list, so that its header needs overflow pages, and one to remove.
func buildRPMs(t *testing.T) []string {
	t.Helper()
	top := t.TempDir()
	var out []string
	for _, p := range []struct {
		name, epoch string
		files       int
	}{{"alpha", "", 3}, {"beta", "Epoch: 7", 700}, {"gamma", "", 1}} {
		var install, files strings.Builder
		install.WriteString("mkdir -p %{buildroot}/usr/bin %{buildroot}/opt/" + p.name + "\n")
		for i := range p.files {
			name := fmt.Sprintf("/usr/bin/%s-%d", p.name, i)
			fmt.Fprintf(&install, "echo %d > %%{buildroot}%s\n", i, name)
			files.WriteString(name + "\n")
		}
		spec := filepath.Join(top, p.name+".spec")
		must(t, os.WriteFile(spec, fmt.Appendf(nil,
			"Name: %s\nVersion: 1.%d\nRelease: 2%%{?dist}\n%s\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%%description\nx\n%%install\n%s%%files\n%s",
			p.name, p.files, p.epoch, install.String(), files.String()), 0o644))
		run(t, "rpmbuild", "--define", "_topdir "+top, "--define", "_build_id_links none", "-bb", spec)
		found, err := filepath.Glob(filepath.Join(top, "RPMS/noarch", p.name+"-*.rpm"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		out = append(out, found[0])
	}
	return out
}

func requireTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			testkit.Missing(t, "%s is missing: install rpm, db5.3-util and python3", name)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, stderr.String())
	}
	return string(out)
}

// hold starts a command that says something when it is ready and ends when
// its input does.
func hold(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
