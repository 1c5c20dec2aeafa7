// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		t.Fatalf("mount %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// program runs what lies in a folder.
func program(t *testing.T, dir string) []string {
	t.Helper()
	return []string{"exec", put(t, dir, "program", exiting())}
}

var inPlaces = []target{
	{name: "writable ancestor far up", class: "suspicious", make: func(t *testing.T) []string {
		open := below(t, folder(t, systemPlace), "open", 0o777)
		return program(t, below(t, open, "a/b/c/d/e", 0o755))
	}},
	{name: "sticky ancestor", class: "suspicious", make: func(t *testing.T) []string {
		open := below(t, folder(t, userPlace), "open", 0o777|os.ModeSticky)
		return program(t, below(t, open, "a", 0o700))
	}},
	{name: "ancestor writable for its group", class: "user", make: func(t *testing.T) []string {
		return program(t, below(t, folder(t, userPlace), "group", 0o775))
	}},
	{name: "mount below a writable folder", class: "suspicious", make: func(t *testing.T) []string {
		open := below(t, folder(t, systemPlace), "open", 0o777)
		dir := below(t, open, "a/mount", 0o755)
		mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
		return program(t, below(t, dir, "b", 0o755))
	}},
	{name: "mount with a writable root", class: "suspicious", make: func(t *testing.T) []string {
		dir := below(t, folder(t, systemPlace), "mount", 0o755)
		mount(t, "tmpfs", dir, "tmpfs", 0, "mode=1777")
		return program(t, below(t, dir, "b", 0o755))
	}},
	// what is covered cannot be reached
	{name: "mount over a writable folder", class: "system", make: func(t *testing.T) []string {
		dir := below(t, folder(t, systemPlace), "mount", 0o777)
		mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
		return program(t, dir)
	}},
	{name: "mount in a system place", class: "system", make: func(t *testing.T) []string {
		dir := below(t, folder(t, systemPlace), "mount", 0o755)
		mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
		return program(t, dir)
	}},
	{name: "mount in a user's place", class: "user", make: func(t *testing.T) []string {
		dir := below(t, folder(t, userPlace), "mount", 0o755)
		mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
		return program(t, below(t, dir, "usr/bin", 0o755))
	}},
	{name: "mounts upon mounts", class: "suspicious", make: func(t *testing.T) []string {
		dir := below(t, folder(t, systemPlace), "open", 0o777)
		for range 5 {
			dir = below(t, dir, "mount", 0o755)
			mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
		}
		return program(t, dir)
	}},
	{name: "bind mount", class: "system", make: func(t *testing.T) []string {
		dir := below(t, folder(t, systemPlace), "mount", 0o755)
		mount(t, folder(t, tempPlace), dir, "", unix.MS_BIND, "")
		return program(t, dir)
	}},
	{name: "bind mount of a file", class: "system", make: func(t *testing.T) []string {
		path := put(t, folder(t, systemPlace), "program", nil)
		mount(t, put(t, folder(t, userPlace), "program", exiting()), path, "", unix.MS_BIND, "")
		return []string{"exec", path}
	}},
	{name: "bind mount of a file into /tmp", class: "suspicious", make: func(t *testing.T) []string {
		path := put(t, folder(t, tempPlace), "program", nil)
		mount(t, put(t, folder(t, systemPlace), "program", exiting()), path, "", unix.MS_BIND, "")
		return []string{"exec", path}
	}},
	{name: "the root", class: "user", make: func(t *testing.T) []string { return program(t, folder(t, "/")) }},
	{name: "a name that begins like a system folder's", class: "user", make: func(t *testing.T) []string {
		return program(t, folderNamed(t, "/usr-process-test"))
	}},
	// /lib*, by its documented pattern
	{name: "a library folder", class: "system", make: func(t *testing.T) []string {
		return program(t, folderNamed(t, "/lib-process-test"))
	}},
	{name: "system folder further down", class: "user", make: func(t *testing.T) []string {
		return program(t, below(t, folder(t, userPlace), "usr/bin", 0o755))
	}},
	{name: "deep path", class: "user", make: func(t *testing.T) []string {
		return program(t, below(t, folder(t, userPlace), strings.Repeat("d/", 100), 0o755))
	}},
	{name: "path deeper than what is looked at", class: "suspicious", make: func(t *testing.T) []string {
		return program(t, below(t, folder(t, userPlace), strings.Repeat("d/", 150), 0o755))
	}},
	{name: "chroot", class: "user", make: func(t *testing.T) []string {
		root := folder(t, "/home")
		put(t, below(t, root, "usr/bin", 0o755), "program", exiting())
		return []string{"exec", "root=" + root, "/usr/bin/program"}
	}},
	{name: "chroot in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		root := folder(t, tempPlace)
		put(t, below(t, root, "usr/bin", 0o755), "program", exiting())
		return []string{"exec", "root=" + root, "/usr/bin/program"}
	}},
	{name: "root of another mount namespace", class: "system", make: func(t *testing.T) []string {
		root := folder(t, tempPlace)
		put(t, below(t, root, "usr/bin", 0o755), "program", exiting())
		return []string{"pivot", root, "/usr/bin/program"}
	}},
	{name: "writable folder of another mount namespace", class: "suspicious", make: func(t *testing.T) []string {
		root := folder(t, userPlace)
		put(t, below(t, root, "usr/bin", 0o777), "program", exiting())
		return []string{"pivot", root, "/usr/bin/program"}
	}},
}

func folderNamed(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

var scripts = []target{
	{name: "script and interpreter of a user", class: "user", make: func(t *testing.T) []string {
		return []string{"exec", script(t, folder(t, "/home"), "script", put(t, folder(t, userPlace), "program", exiting()))}
	}},
	{name: "interpreter in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"exec", script(t, folder(t, systemPlace), "script", put(t, folder(t, tempPlace), "program", exiting()))}
	}},
	{name: "script of a script", class: "system", make: func(t *testing.T) []string {
		inner := script(t, folder(t, userPlace), "inner", put(t, folder(t, systemPlace), "program", exiting()))
		return []string{"exec", script(t, folder(t, userPlace), "outer", inner)}
	}},
	{name: "outer script in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		inner := script(t, folder(t, userPlace), "inner", put(t, folder(t, systemPlace), "program", exiting()))
		return []string{"exec", script(t, folder(t, tempPlace), "outer", inner)}
	}},
	{name: "inner script in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		inner := script(t, folder(t, tempPlace), "inner", put(t, folder(t, systemPlace), "program", exiting()))
		return []string{"exec", script(t, folder(t, systemPlace), "outer", inner)}
	}},
	{name: "script by descriptor", class: "system", make: func(t *testing.T) []string {
		return []string{"at", "fd", script(t, folder(t, "/home"), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	{name: "script by descriptor in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"at", "fd", script(t, folder(t, tempPlace), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	{name: "script in a memfd", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"at", "memfd", script(t, folder(t, userPlace), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	{name: "deleted script", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"at", "deleted", script(t, folder(t, userPlace), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	// an argument is no script: only the interpreter itself could tell
	{name: "script as an argument", class: "system", make: func(t *testing.T) []string {
		return []string{"exec", "/bin/sh", script(t, folder(t, tempPlace), "script", "/bin/sh")}
	}},
}

// Files that the exec closes stand before the script on the way to it.
func TestScriptBehindClosedFiles(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	worker := copyOfWorker(t, folder(t, systemPlace))
	plain := filepath.Join(folder(t, tempPlace), "plain")
	if err := os.WriteFile(plain, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, place, files, class string
	}{
		{"safe script, open file in /tmp", userPlace, "3", "system"},
		{"script in /tmp, no other file", tempPlace, "0", "suspicious"},
		{"script in /tmp, some files", tempPlace, "30", "suspicious"},
		{"script in /tmp, hidden behind many files", tempPlace, "900", "suspicious"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.files != "0" && c.class == "suspicious" && !p.Runs("on_sched_prepare_exec") && !p.Runs("on_kprobe_security_bprm_creds_from_file") {
				t.Skip("needs Linux 6.10: before, a script behind more than 7 files that the exec closes is not seen")
			}
			path := script(t, folder(t, c.place), "script", worker)
			watch := testkit.NewWatch(t, p, execs, exits)
			for range testkit.Few {
				w.Do("open", c.files, plain)
				w.Do("become", path)
			}
			w.Do("ping")
			watch.Expect(t, map[string]map[int]int64{execs: perClass{c.class: testkit.Few}.byIndex(t)})
			live := perClass{c.class: 1}.byIndex(t)
			for class, n := range testkit.Sum(t, p, active) {
				if n != live[class] {
					t.Errorf("active[%d] is %d, want %d", class, n, live[class])
				}
			}
		})
	}
}
