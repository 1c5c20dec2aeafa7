// SPDX-License-Identifier: Apache-2.0

package version

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

// TestMain is also the process that is identified: it says that it runs and
// ends with its input.
func TestMain(m *testing.M) {
	if os.Getenv("VERSION_TEST_PROCESS") != "" {
		_, _ = os.Stdout.WriteString("ready\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// start runs a command until the test ends and returns its pid.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	cmd.Env = append(cmd.Env, "VERSION_TEST_PROCESS=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, stderr.String())
	}
	return cmd.Process.Pid
}

// container is a root file system in a mount namespace of its own.
type container struct {
	t    *testing.T
	root string
}

func newContainer(t *testing.T) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if _, err := exec.LookPath("pivot_root"); err != nil {
		missing(t, "pivot_root is missing: install util-linux")
	}
	return &container{t, t.TempDir()}
}

func (c *container) write(name, content string) {
	c.t.Helper()
	file := filepath.Join(c.root, name)
	must(c.t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(c.t, os.WriteFile(file, []byte(content), 0o755))
}

// binary puts the test binary into the container.
func (c *container) binary(name string) {
	c.t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	must(c.t, err)
	c.write(name, string(b))
}

// run starts a program of the container with these arguments.
func (c *container) run(dir string, args ...string) int {
	c.t.Helper()
	must(c.t, os.MkdirAll(filepath.Join(c.root, "old"), 0o755))
	must(c.t, os.MkdirAll(filepath.Join(c.root, dir), 0o755))
	script := `mount --make-rprivate / && mount --bind "$1" "$1" && cd "$1" && pivot_root . old && cd "$2" && shift 2 && exec "$@"`
	return start(c.t, exec.Command("unshare", append([]string{"-m", "sh", "-c", script, "sh", c.root, dir}, args...)...))
}

func find(t *testing.T, pids ...int) map[int]Identity {
	t.Helper()
	return NewFinder(time.Now).Find(t.Context(), hostfs.New(hostfs.Paths{}), pids, nil)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func jarBytes(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		must(t, err)
		_, err = io.WriteString(w, files[i+1])
		must(t, err)
	}
	must(t, z.Close())
	return b.String()
}

// Each source of a version, in a root of its own: nothing in it is on the host
// and the other way round.
func TestFindInContainer(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	for _, exe := range []string{"usr/bin/packaged", "opt/app/bare", "opt/java/bin/java", "usr/bin/python3.11", "usr/local/bin/node"} {
		c.binary(exe)
	}
	c.write("lib/apk/db/installed", "P:daemon\nV:9.9-r1\nF:bin\nR:packaged\nF:usr/bin\nR:tool.py\nR:python3.11\n\n")
	c.write("srv/web/package.json", `{"name":"web-shop","version":"3.2.1"}`)
	c.write("srv/web/dist/package.json", `{"type":"module"}`)
	c.write("srv/web/dist/server.js", "")
	c.write("usr/bin/tool.py", "")
	c.write("srv/run.py", "")
	c.write("opt/venv/lib/python3.11/site-packages/gunicorn-21.2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gunicorn\nVersion: 21.2.0\n\nVersion: no\n")
	c.write("opt/venv/lib/python3.11/site-packages/gunicorn-21.2.0.dist-info/entry_points.txt", "[console_scripts]\ngunicorn = gunicorn.app:run\n")
	c.write("opt/venv/bin/gunicorn", "")
	c.write("usr/lib/python3.11/site-packages/Some_App-1.5.dist-info/METADATA", "Name: some-app\nVersion: 1.5\n")
	c.write("usr/lib/python3.11/site-packages/Some_App-1.5.dist-info/top_level.txt", "someapp\n")
	c.write("srv/app-1.0.jar", jarBytes(t, "META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nImplementation-Title: shop\r\nImplementation-Version: 4.\r\n 5.6\r\n\r\nName: x\r\nImplementation-Version: 7\r\n"))
	c.write("srv/lib/other-9.jar", jarBytes(t, "org/x/Y.class", ""))
	c.write("srv/lib/kafka_2.13-3.7.0.jar", jarBytes(t, "META-INF/MANIFEST.MF", "Version: 3.7.0\n", "kafka/Kafka.class", ""))

	for name, test := range map[string]struct {
		dir  string
		args []string
		want Identity
	}{
		"package, by the other name of /usr/bin": {"/", []string{"/usr/bin/packaged"}, Identity{App: "packaged", Version: "9.9-r1", Source: "apk", Exe: "/usr/bin/packaged"}},
		"no source":                              {"/", []string{"/opt/app/bare"}, Identity{App: "version.test", Source: None, Exe: "/opt/app/bare"}},
		"node":                                   {"/srv/web", []string{"/usr/local/bin/node", "--max-old-space-size=1", "-r", "x", "dist/server.js"}, Identity{App: "web-shop", Version: "3.2.1", Source: PackageJSON, Exe: "/usr/local/bin/node"}},
		"script of a package":                    {"/", []string{"/usr/bin/python3.11", "-u", "/usr/bin/tool.py"}, Identity{App: "tool", Version: "9.9-r1", Source: "apk", Exe: "/usr/bin/python3.11"}},
		"console script":                         {"/", []string{"/usr/bin/python3.11", "/opt/venv/bin/gunicorn", "a:b"}, Identity{App: "gunicorn", Version: "21.2.0", Source: DistInfo, Exe: "/usr/bin/python3.11"}},
		"module":                                 {"/", []string{"/usr/bin/python3.11", "-X", "dev", "-m", "someapp.main"}, Identity{App: "some-app", Version: "1.5", Source: DistInfo, Exe: "/usr/bin/python3.11"}},
		"plain script":                           {"/", []string{"/usr/bin/python3.11", "/srv/run.py"}, Identity{App: "python3.11", Version: "9.9-r1", Source: "apk", Exe: "/usr/bin/python3.11"}},
		"jar":                                    {"/srv", []string{"/opt/java/bin/java", "-Xmx1m", "-cp", "/x", "-jar", "app-1.0.jar", "-jar", "no.jar"}, Identity{App: "shop", Version: "4.5.6", Source: Jar, Exe: "/opt/java/bin/java"}},
		"class path":                             {"/", []string{"/opt/java/bin/java", "-cp", "/none.jar:/srv/lib/*", "kafka.Kafka", "x"}, Identity{App: "kafka_2.13", Version: "3.7.0", Source: Jar, Exe: "/opt/java/bin/java"}},
	} {
		t.Run(name, func(t *testing.T) {
			pid := c.run(test.dir, test.args...)
			got := find(t, pid)[pid]
			test.want.Name = filepath.Base(test.args[0])
			if got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

// Links out of the root, files that are none, and bombs.
func TestFindHostile(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	for _, exe := range []string{"bin/node", "bin/java"} {
		c.binary(exe)
	}
	secret := filepath.Join(t.TempDir(), "shadow")
	must(t, os.WriteFile(secret, []byte(`{"name":"secret","version":"6.6.6"}`), 0o644))
	for dir, link := range map[string]string{
		"absolute": secret, "relative": strings.Repeat("../", 20) + secret, "magic": "/proc/1/root" + secret, "self": "package.json",
	} {
		must(t, os.MkdirAll(filepath.Join(c.root, dir), 0o755))
		must(t, os.Symlink(link, filepath.Join(c.root, dir, "package.json")))
	}
	must(t, os.MkdirAll(filepath.Join(c.root, "fifo"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(c.root, "fifo/package.json"), 0o644))
	c.write("huge/package.json", "")
	must(t, os.Truncate(filepath.Join(c.root, "huge/package.json"), 1<<40))
	c.write("array/package.json", `[{"name":"x","version":"1.0"}]`)
	c.write("typed/package.json", `{"name":"x","version":{"a":1}}`)
	for _, dir := range []string{"absolute", "relative", "magic", "self", "fifo", "huge", "array", "typed"} {
		pid := c.run("/", "/bin/node", "/"+dir+"/x.js")
		began := time.Now()
		if got := find(t, pid)[pid]; got.Version != "" || got.Source != None || time.Since(began) > ProcessTime {
			t.Errorf("%s: %+v after %s", dir, got, time.Since(began))
		}
	}
	c.write("bomb.jar", jarBytes(t, "META-INF/MANIFEST.MF", strings.Repeat("A: b\n", 1<<22)+"Implementation-Version: 1.0\n"))
	pid := c.run("/", "/bin/java", "-jar", "/bomb.jar")
	if got := find(t, pid)[pid]; got.Version != "" {
		t.Errorf("bomb: %+v", got)
	}
}

// The host itself: a file of a package and one that was removed while it
// runs.
func TestFindOnHost(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "coreutils").Output()
	if err != nil {
		missing(t, "needs a host of dpkg")
	}
	cat, err := os.ReadFile("/usr/bin/cat")
	must(t, err)
	dir := t.TempDir()
	copied := filepath.Join(dir, "removed")
	must(t, os.WriteFile(copied, cat, 0o755))
	run := func(path string) int {
		cmd := exec.Command(path)
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = in.Close()
			_ = cmd.Wait()
		})
		return cmd.Process.Pid
	}
	packaged, removed := run("/usr/bin/cat"), run(copied)
	must(t, os.Remove(copied))
	got := find(t, packaged, removed, 1<<30)
	if want := (Identity{"cat", "/usr/bin/cat", "cat", string(out), "dpkg"}); got[packaged] != want {
		t.Errorf("%+v, want %+v", got[packaged], want)
	}
	if want := (Identity{"removed", copied, "removed", "", None}); got[removed] != want {
		t.Errorf("%+v, want %+v", got[removed], want)
	}
	if len(got) != 2 {
		t.Errorf("%d processes", len(got))
	}
}

// What is upgraded under a running process is not its version.
func TestFindReplaced(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.binary("usr/bin/daemon")
	c.write("lib/apk/db/installed", "P:daemon\nV:2.0-r0\nF:usr/bin\nR:daemon\n\n")
	pid := c.run("/", "/usr/bin/daemon")
	finder, root := NewFinder(time.Now), hostfs.New(hostfs.Paths{})
	if got := finder.Find(t.Context(), root, []int{pid}, nil)[pid]; got.Version != "2.0-r0" {
		t.Fatalf("%+v", got)
	}
	c.binary("usr/bin/new")
	must(t, os.Rename(filepath.Join(c.root, "usr/bin/new"), filepath.Join(c.root, "usr/bin/daemon")))
	got := finder.Find(t.Context(), root, []int{pid}, nil)[pid]
	if got.Version != "" || got.Exe != "/usr/bin/daemon" {
		t.Errorf("%+v", got)
	}
}

// Nothing is read again before its time, and then it is.
func TestFindCached(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.binary("usr/bin/daemon")
	database := "lib/apk/db/installed"
	pid, other := c.run("/", "/usr/bin/daemon"), c.run("/", "/usr/bin/daemon")
	now := time.Now()
	finder, root := NewFinder(func() time.Time { return now }), hostfs.New(hostfs.Paths{})
	version := func(pid int) string { return finder.Find(context.Background(), root, []int{pid}, nil)[pid].Version }
	if got := version(pid); got != "" {
		t.Errorf("%q without a database", got)
	}
	c.write(database, "P:daemon\nV:1.0-r0\nF:usr/bin\nR:daemon\n\n")
	if a, b := version(pid), version(other); a != "" || b != "" {
		t.Errorf("%q, %q at once", a, b)
	}
	now = now.Add(NotFound + time.Second)
	if a, b := version(pid), version(other); a != "1.0-r0" || b != "1.0-r0" {
		t.Errorf("%q, %q after %s", a, b, NotFound)
	}
	c.write(database, "P:daemon\nV:1.1-r0\nF:usr/bin\nR:daemon\n\n")
	now = now.Add(NotFound + time.Second)
	if got := version(pid); got != "1.0-r0" {
		t.Errorf("%q before %s", got, Found)
	}
	now = now.Add(Found)
	if got := version(pid); got != "1.1-r0" {
		t.Errorf("%q after %s", got, Found)
	}
}

// When the time for lookups is used up, a process keeps its name and what was
// known of it.
func TestFindOutOfTime(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.binary("usr/bin/daemon")
	c.write("lib/apk/db/installed", "P:daemon\nV:1.0-r0\nF:usr/bin\nR:daemon\n\n")
	pid, fresh := c.run("/", "/usr/bin/daemon"), c.run("/", "/usr/bin/daemon")
	finder, root := NewFinder(time.Now), hostfs.New(hostfs.Paths{})
	if got := finder.Find(t.Context(), root, []int{pid}, nil)[pid]; got.Version != "1.0-r0" {
		t.Fatalf("%+v", got)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	old, err := finder.open(t.Context(), over, root, pid)
	if err != nil || old.old == nil || old.old.id.Version != "1.0-r0" {
		t.Errorf("%+v, %v", old, err)
	}
	s, err := finder.open(t.Context(), over, root, fresh)
	if err != nil || s.id.Name != "daemon" || s.id.Exe != "/usr/bin/daemon" || s.old != nil {
		t.Errorf("%+v, %v", s, err)
	}
	old.close()
	s.close()
}

// missing skips a test, or fails it where CI is set. It is not that of package
// testkit, which would link the C library: the tests run in roots without one.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
