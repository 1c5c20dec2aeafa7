// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asChild makes the test binary filter itself and try to execute programs.
const asChild = "HARDEN_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child prints one line for each way to execute a program.
func child() {
	other := make(chan struct{})
	result := make(chan error)
	go func() { // a thread that was there before the filter
		runtime.LockOSThread()
		<-other
		result <- syscall.Exec("/bin/true", []string{"true"}, nil)
	}()
	runtime.Gosched()
	runtime.LockOSThread()
	fmt.Println("before", unix.Access("/bin/true", unix.X_OK))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
	}
	if err := denyExec(); err != nil {
		fmt.Println(err)
	}
	close(other)
	fmt.Println("execve of another thread", <-result)
	fmt.Println("execve", syscall.Exec("/bin/true", []string{"true"}, nil))
	path, _ := unix.BytePtrFromString("/bin/true")
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(unix.AT_FDCWD&0xffffffff), uintptr(unsafe.Pointer(path)), 0, 0, 0, 0)
	fmt.Println("execveat", errno)
	_, _, errno = unix.RawSyscall(x32Bit|520, uintptr(unsafe.Pointer(path)), 0, 0)
	fmt.Println("execve of x32", errno)
	fmt.Println("others", unix.Getpid() > 0, unix.Access("/", unix.R_OK))
}

func TestExecIsDenied(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asChild+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "before <nil>\n" +
		"execve of another thread operation not permitted\n" +
		"execve operation not permitted\n" +
		"execveat operation not permitted\n" +
		"execve of x32 operation not permitted\n" +
		"others true <nil>\n"
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestFilter runs the filter as the kernel would on numbers that this machine
// may not have.
func TestFilter(t *testing.T) {
	t.Parallel()
	const i386, i386Exec = 0x40000003, 11
	for name, c := range map[string]struct {
		arch, number uint32
		denied       bool
	}{
		"execve":            {auditArch, unix.SYS_EXECVE, true},
		"execveat":          {auditArch, unix.SYS_EXECVEAT, true},
		"openat":            {auditArch, unix.SYS_OPENAT, false},
		"clone":             {auditArch, unix.SYS_CLONE, false},
		"execve by int 80h": {i386, i386Exec, true},
		"getpid by int 80h": {i386, 20, true},
		"x32":               {auditArch, x32Bit | 520, true},
	} {
		if got := runFilter(t, execFilter(), c.arch, c.number); got != c.denied {
			t.Errorf("%s: denied %v, want %v", name, got, c.denied)
		}
	}
}

// runFilter interprets the few instructions that the filter is made of.
func runFilter(t *testing.T, program []unix.SockFilter, arch, number uint32) bool {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		i := program[pc]
		taken := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = map[uint32]uint32{offsetArch: arch, offsetNumber: number}[i.K]
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken = a >= i.K
		case unix.BPF_RET | unix.BPF_K:
			return i.K != unix.SECCOMP_RET_ALLOW
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
		if taken {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	t.Fatal("the filter has no end")
	return false
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	all := map[string]bool{"firewall": true, "ports": true, "audit": true, "sysctl": true}
	for name, c := range map[string]struct {
		needs Needs
		last  int
		want  string
	}{
		"everything":       {Needs{EBPF: true, Collectors: all}, 40, "dac_read_search net_admin sys_ptrace sys_admin audit_control perfmon bpf"},
		"before 5.8":       {Needs{EBPF: true, Collectors: all}, 37, "dac_read_search net_admin sys_ptrace sys_admin audit_control"},
		"posture":          {Needs{Collectors: all}, 40, "dac_read_search net_admin sys_ptrace sys_admin audit_control"},
		"eBPF alone":       {Needs{EBPF: true}, 40, "dac_read_search sys_ptrace perfmon bpf"},
		"neither":          {Needs{Collectors: map[string]bool{"audit": false}}, 40, "dac_read_search"},
		"checks ask audit": {Needs{Collectors: map[string]bool{"checks": true}}, 40, "dac_read_search audit_control"},
	} {
		var set uint64
		for _, n := range c.needs.Capabilities(c.last) {
			set |= 1 << n
		}
		if got := capabilityText(set); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestCapabilityText(t *testing.T) {
	t.Parallel()
	for set, want := range map[uint64]string{
		0: "none", 1 << unix.CAP_BPF: "bpf", 1<<40 | 1<<2: "0000010000000004",
	} {
		if got := capabilityText(set); got != want {
			t.Errorf("%x: %s, want %s", set, got, want)
		}
	}
}

const someStatus = "Name:\tse\nCapInh:\t0000000000000001\nCapPrm:\t000000c040081004\nCapEff:\t000000c000000000\n" +
	"CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000002\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"

func TestParseStatus(t *testing.T) {
	t.Parallel()
	got, err := parseStatus(strings.NewReader(someStatus))
	want := status{
		effective: 0xc000000000, permitted: 0xc040081004, inheritable: 1, ambient: 2, bounding: 0x1ffffffffff,
		noNewPrivs: true, seccomp: true,
	}
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	for text, want := range map[string]string{
		"":             "own status: 5 of the capability sets are missing",
		"CapEff:\tx\n": `own status: CapEff: strconv.ParseUint: parsing "x": invalid syntax`,
		strings.Replace(someStatus, "CapBnd", "CapBad", 1): "own status: 1 of the capability sets are missing",
	} {
		if _, err := parseStatus(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	own, err := readStatus("/proc/self/status")
	if err != nil || own.bounding == 0 && os.Geteuid() == 0 {
		t.Errorf("own status: %+v %v", own, err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(someStatus)
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseStatus(strings.NewReader(text))
		second, _ := parseStatus(strings.NewReader(text))
		if err == nil && !reflect.DeepEqual(first, second) {
			t.Error("not the same twice")
		}
	})
}

func TestBusyThread(t *testing.T) {
	t.Parallel()
	futex, openat := strconv.Itoa(unix.SYS_FUTEX), strconv.Itoa(unix.SYS_OPENAT)
	for name, c := range map[string]struct {
		calls []string
		busy  bool
	}{
		"idle":           {[]string{futex + " 0x1 0x2\n", "running\n"}, false},
		"opens":          {[]string{futex + " 0x1\n", openat + " 0xffffff9c 0x7f\n"}, true},
		"no system call": {[]string{"-1 0x7ffc 0x1\n"}, false},
		"ended":          {[]string{""}, false},
	} {
		dir := t.TempDir()
		for i, call := range c.calls {
			thread := filepath.Join(dir, strconv.Itoa(1000000000+i))
			if err := os.Mkdir(thread, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(thread, "syscall"), []byte(call), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if busy, err := busyThread(dir); err != nil || busy != c.busy {
			t.Errorf("%s: %v %v, want %v", name, busy, err, c.busy)
		}
		var want error
		if c.busy {
			want = ErrBusy
		}
		if err := waitForThreads(t.Context(), dir); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
