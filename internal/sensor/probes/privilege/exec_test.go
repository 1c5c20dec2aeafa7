// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// fileCapabilities is the extended attribute security.capability, version 2
// (capabilities(7)).
func fileCapabilities(effective bool, permitted, inheritable uint32) []byte {
	magic := uint32(0x02000000)
	if effective {
		magic |= 1
	}
	var out []byte
	for _, word := range []uint32{magic, permitted, inheritable, 0, 0} {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}

const netRaw = 1 << unix.CAP_NET_RAW

// program is a copy of /bin/true, or of a script.
type program struct {
	uid, gid     int
	mode         uint32
	capabilities []byte
}

var programs = map[string]program{
	"plain":               {mode: 0o755},
	"suid-root":           {mode: 0o4755},
	"suid-2000":           {mode: 0o4755, uid: 2000},
	"suid-1000":           {mode: 0o4755, uid: 1000},
	"sgid-2000":           {mode: 0o2755, gid: 2000},
	"sgid-1000":           {mode: 0o2755, gid: 1000},
	"sgid-not-executable": {mode: 0o2745, gid: 2000},
	"both":                {mode: 0o6755, gid: 2000},
	"caps":                {mode: 0o755, capabilities: fileCapabilities(true, netRaw, 0)},
	"caps-permitted":      {mode: 0o755, capabilities: fileCapabilities(false, netRaw, 0)},
	"caps-inheritable":    {mode: 0o755, capabilities: fileCapabilities(true, 0, netRaw)},
	"suid-caps":           {mode: 0o4755, capabilities: fileCapabilities(true, netRaw, 0)},
}

// makePrograms puts the programs in a directory that everybody may enter.
func makePrograms(t *testing.T, nosuid bool) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "privilege-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if nosuid {
		if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(folder, 0); err != nil {
				t.Error(err)
			}
		})
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, p := range programs {
		if err := copyFile("/bin/true", filepath.Join(folder, name), p.uid, p.gid, p.mode, p.capabilities); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(folder, "script")
	if err := os.WriteFile(script, []byte("#!"+filepath.Join(folder, "plain")+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(script, 0o4755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// each is what one execution of a program must count.
var execCases = []struct {
	name, setup, program string
	nosuid, traced       bool
	each                 counts
	// before 6.10 the old credentials are guessed
	guessed counts
	// the classic tracepoint has no linux_binprm
	classic counts
}{
	{name: "plain", setup: ordinary, program: "plain"},
	{name: "suid root", setup: ordinary, program: "suid-root", each: counts{"suid_exec success": 1, "suid_exec": 1}},
	{name: "suid of another user", setup: ordinary, program: "suid-2000", each: counts{"suid_exec success": 1}},
	{name: "suid of oneself", setup: ordinary, program: "suid-1000"},
	{name: "suid script", setup: ordinary, program: "script"},
	{name: "sgid", setup: ordinary, program: "sgid-2000", each: counts{"suid_exec success": 1}},
	{name: "sgid of oneself", setup: ordinary, program: "sgid-1000"},
	{name: "sgid without execute", setup: ordinary, program: "sgid-not-executable"},
	{name: "both bits", setup: ordinary, program: "both", each: counts{"suid_exec success": 1, "suid_exec": 1}},
	{name: "suid and capabilities", setup: ordinary, program: "suid-caps",
		each:    counts{"suid_exec success": 1, "filecap_exec success": 1, "suid_exec": 1},
		guessed: counts{"suid_exec success": 1, "filecap_exec success": 1, "suid_exec": 1}},
	{name: "suid, no new privileges", setup: ordinary + " nnp", program: "suid-root", each: counts{"suid_exec failure": 1}},
	{name: "sgid, no new privileges", setup: ordinary + " nnp", program: "sgid-2000", each: counts{"suid_exec failure": 1}},
	{name: "suid of oneself, no new privileges", setup: ordinary + " nnp", program: "suid-1000"},
	{name: "suid, nosuid", setup: ordinary, program: "suid-root", nosuid: true, each: counts{"suid_exec failure": 1}},
	{name: "suid, traced", setup: ordinary, program: "suid-root", traced: true, each: counts{"suid_exec failure": 1}},

	{name: "capabilities", setup: ordinary, program: "caps", each: counts{"filecap_exec success": 1, "filecap_exec": 1}},
	{name: "capabilities not effective", setup: ordinary, program: "caps-permitted", each: counts{"filecap_exec success": 1}},
	{name: "capabilities not inherited", setup: ordinary, program: "caps-inheritable"},
	{name: "capabilities inherited", setup: "capset:inherit " + ordinary, program: "caps-inheritable",
		each: counts{"filecap_exec success": 1, "filecap_exec": 1}},
	{name: "capabilities, no new privileges", setup: ordinary + " nnp", program: "caps",
		each: counts{"filecap_exec failure": 1}, classic: counts{}},
	{name: "capabilities, traced", setup: ordinary, program: "caps", traced: true,
		each: counts{"filecap_exec failure": 1}, classic: counts{}},
	{name: "capabilities, nosuid: not seen", setup: ordinary, program: "caps", nosuid: true},
	{name: "plain, no new privileges", setup: ordinary + " nnp", program: "plain"},

	{name: "root plain", program: "plain"},
	{name: "root suid root", program: "suid-root"},
	{name: "root capabilities", program: "caps"},
	{name: "root capabilities, no new privileges", setup: "nnp", program: "caps"},
	{name: "root gets back what it dropped", setup: "capset:drop", program: "plain"},
	{name: "root suid of another user", program: "suid-2000", each: counts{"suid_exec success": 1}},
	{name: "real user, effective root, suid root", setup: "setresuid:1000:0:0", program: "suid-root",
		guessed: counts{"suid_exec success": 1, "suid_exec": 1}},
	{name: "real root, effective user, capabilities", setup: "setresuid:0:1000:0", program: "caps",
		each: counts{"filecap_exec success": 1, "filecap_exec": 1}},
}

// startExecRung starts the probe with one rung for programs, which some kernels
// have not.
func startExecRung(t *testing.T, host *probe.Host, cgroup *testkit.Cgroup, rung int) *probe.Probe {
	t.Helper()
	hook := execRungs()[rung].Hook
	if strings.HasSuffix(hook, "sched_prepare_exec") && host.TracepointParams("sched_prepare_exec") == 0 {
		t.Skip("needs Linux 6.10")
	}
	p, _ := startBoth(t, host, withRung("programs", rung), cgroup.Only())
	if s := p.Status(); s.State == probe.Unsupported && strings.HasPrefix(hook, "kprobe/") {
		t.Skipf("needs a kernel with kprobes: %+v", s)
	}
	return p
}

// guesses: the rung in use does not know the credentials before an exec.
func guesses(p *probe.Probe) bool {
	return !p.Runs("on_sched_prepare_exec") && !p.Runs("on_raw_sched_prepare_exec") && !p.Runs("on_kprobe_security_bprm_committing_creds")
}

// checkExecs has workers execute programs, n times each. Nothing is counted as
// other, also when the worker ends.
func checkExecs(t *testing.T, cgroup *testkit.Cgroup, p *probe.Probe, folders map[bool]string, classic bool, n int64) {
	t.Helper()
	for _, c := range execCases {
		each := c.each
		if c.guessed != nil && guesses(p) {
			each = c.guessed
		}
		if c.classic != nil && classic {
			each = c.classic
		}
		t.Run(c.name, func(t *testing.T) {
			w := cgroup.Start(t, "privilege")
			w.Do("setup", strings.Fields(c.setup)...)
			watch := newWatch(t, p)
			args := []string{strconv.FormatInt(n, 10), filepath.Join(folders[c.nosuid], c.program)}
			if c.traced {
				args = append(args, "traced")
			}
			w.Do("exec", args...)
			w.Stop()
			want := counts{}
			for name, times := range each {
				want.plus(name, times*n)
			}
			expect(t, watch, want)
		})
	}
}

// checkExecsOfThreads: what another thread than the leader had before an exec is
// compared with that thread's own, although the exec gives it the leader's id.
func checkExecsOfThreads(t *testing.T, cgroup *testkit.Cgroup, p *probe.Probe, folder string) {
	t.Helper()
	const n = testkit.Few
	for _, c := range []struct {
		name, program, leader, thread string
		want                          counts
	}{
		{"of a thread that dropped root", "suid-root", "", "setresuid:-1:1000:-1",
			counts{"setuid success": n, "suid_exec success": n, "suid_exec": n}},
		{"of a thread that kept root", "plain", "setresuid:1000:1000:1000", "", counts{"setuid success": n}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if guesses(p) {
				t.Skip("the old credentials are guessed")
			}
			w := cgroup.Start(t, "privilege")
			watch := newWatch(t, p)
			w.Do("exec-of-thread", strconv.Itoa(n), filepath.Join(folder, c.program), c.leader, c.thread)
			w.Stop()
			expect(t, watch, c.want)
			testkit.ExpectEmpty(t, p)
		})
	}
}

func TestExec(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	folders := map[bool]string{false: makePrograms(t, false), true: makePrograms(t, true)}
	for rung, n := range []int64{rounds, testkit.Few, testkit.Few, testkit.Few, testkit.Few, testkit.Few} {
		hook := execRungs()[rung].Hook
		t.Run(hook, func(t *testing.T) {
			p := startExecRung(t, host, cgroup, rung)
			checkExecs(t, cgroup, p, folders, strings.HasPrefix(hook, "tracepoint/"), n)
			checkExecsOfThreads(t, cgroup, p, folders[false])
		})
	}
}

// idmapped mounts folder once more, with ids moved up by 100000.
func idmapped(t *testing.T, folder string) string {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	holder := exec.Command("/bin/sleep", "60")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	namespace, err := os.Open("/proc/" + strconv.Itoa(holder.Process.Pid) + "/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		t.Skipf("needs a file system with idmapped mounts (Linux 5.12): %v", err)
	}
	target := t.TempDir()
	for at := target; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
	return target
}

// In an idmapped mount the owner is not the one on disk.
func TestExecIdmapped(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	folder := idmapped(t, makePrograms(t, false))
	p, _ := startBoth(t, host, New(), cgroup.Only())
	mappedRoot := "setresgid:100000:100000:100000 setresuid:100000:100000:100000"
	for _, c := range []struct {
		name, setup, program string
		each                 counts
	}{
		{"another user", ordinary, "suid-root", counts{"suid_exec success": 1}},
		{"the owner", mappedRoot, "suid-root", nil},
		{"another group", ordinary, "sgid-2000", counts{"suid_exec success": 1}},
		{"refused", ordinary + " nnp", "suid-root", counts{"suid_exec failure": 1}},
		{"the owner, refused", mappedRoot + " nnp", "suid-root", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := cgroup.Start(t, "privilege")
			defer w.Stop()
			w.Do("setup", strings.Fields(c.setup)...)
			watch := newWatch(t, p)
			w.Do("exec", strconv.Itoa(rounds), filepath.Join(folder, c.program))
			want := counts{}
			for name, times := range c.each {
				want.plus(name, times*rounds)
			}
			expect(t, watch, want)
		})
	}
}
