// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// worker makes the real calls. All of them are raw: they concern the calling
// thread alone, as the kernel sees it.
var worker = testkit.Worker{
	"calls":          runCalls,
	"setup":          setup,
	"exec":           runExec,
	"exec-of-thread": runExecOfThread,
	"as-thread":      asThread,
	"child":          runChild,
}

// A call is written as name:argument:..., with ! before one that must fail
// and ? before one that only asks.
type call struct {
	name  string
	args  []string
	fails bool
	query bool
}

func parseCall(text string) call {
	c := call{fails: strings.HasPrefix(text, "!"), query: strings.HasPrefix(text, "?")}
	words := strings.Split(strings.TrimLeft(text, "!?"), ":")
	c.name, c.args = words[0], words[1:]
	return c
}

var numbers = map[string]uintptr{
	"setuid": unix.SYS_SETUID, "setreuid": unix.SYS_SETREUID, "setresuid": unix.SYS_SETRESUID, "setfsuid": unix.SYS_SETFSUID,
	"setgid": unix.SYS_SETGID, "setregid": unix.SYS_SETREGID, "setresgid": unix.SYS_SETRESGID, "setfsgid": unix.SYS_SETFSGID,
	"setgroups": unix.SYS_SETGROUPS,
}

func (c call) do() error {
	switch c.name {
	case "capset":
		return setCapabilities(c.args[0])
	case "seccomp":
		return refuseBySeccomp(numbers[c.args[0]])
	case "nnp":
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	var args [3]uintptr
	for i, arg := range c.args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		args[i] = uintptr(uint32(n))
	}
	_, _, errno := unix.RawSyscall(numbers[c.name], args[0], args[1], args[2])
	if errno != 0 {
		return errno
	}
	return nil
}

// setCapabilities: same keeps them, drop empties the effective ones, full
// makes all permitted ones effective, raise asks for one that is not
// permitted, fault passes no data.
func setCapabilities(how string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	switch how {
	case "drop":
		data[0].Effective, data[1].Effective = 0, 0
	case "full":
		data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	case "raise":
		data[0].Permitted |= 1 << unix.CAP_SYS_ADMIN
		data[0].Effective |= 1 << unix.CAP_SYS_ADMIN
	case "inherit":
		data[0].Inheritable |= 1 << unix.CAP_NET_RAW
	case "fault":
		_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), 8, 0)
		return errno
	}
	return unix.Capset(&header, &data[0])
}

// refuseBySeccomp makes one call fail with EPERM before it is entered.
func refuseBySeccomp(number uintptr) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(number)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, 2, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

func (c call) check() error {
	err := c.do()
	silent := c.name == "setfsuid" || c.name == "setfsgid"
	if !silent && c.fails != (err != nil) {
		return fmt.Errorf("%s %v: fails: %v, got %v", c.name, c.args, c.fails, err)
	}
	return nil
}

// runCalls: threads, rounds, the calls each thread makes once, then those it
// makes each round, changing the CPU every time.
func runCalls(args ...string) (string, error) {
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return "", err
	}
	done := make(chan error)
	for range threads {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends here
			done <- callThread(rounds, strings.Fields(args[2]), strings.Fields(args[3]))
		}()
	}
	var errs []error
	for range threads {
		errs = append(errs, <-done)
	}
	return "", errors.Join(errs...)
}

func callThread(rounds int, once, each []string) error {
	for _, text := range once {
		if err := parseCall(text).check(); err != nil {
			return err
		}
	}
	var calls []call
	for _, text := range each {
		calls = append(calls, parseCall(text))
	}
	for round := range rounds {
		for i, c := range calls {
			migrate(round + i)
			if err := c.check(); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
	}
	return nil
}

func migrate(n int) {
	var set unix.CPUSet
	set.Set(n % runtime.NumCPU())
	_ = unix.SchedSetaffinity(0, &set)
}

// setup changes the main thread for all later actions.
func setup(args ...string) (string, error) {
	runtime.LockOSThread()
	for _, text := range args {
		if err := parseCall(text).check(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// runExec executes a file n times as a child of the main thread.
func runExec(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	traced := len(args) > 2 && args[2] == "traced"
	for range n {
		command := exec.Command(args[1])
		command.SysProcAttr = &syscall.SysProcAttr{Ptrace: traced}
		if err := command.Start(); err != nil {
			return "", err
		}
		if traced {
			var status unix.WaitStatus
			if _, err := unix.Wait4(command.Process.Pid, &status, 0, nil); err != nil {
				return "", err
			}
			if err := unix.PtraceDetach(command.Process.Pid); err != nil {
				return "", err
			}
		}
		if err := command.Wait(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// onLeader tells a worker to keep its actions on the thread that leads its group.
const onLeader = "SECURITY_EXPORTER_TEST_ON_LEADER"

// While packages are initialized, the leader runs them (package runtime).
var leads = func() bool {
	lead := os.Getenv(onLeader) != ""
	if lead {
		runtime.LockOSThread()
	}
	return lead
}()

// runExecOfThread starts n workers for asThread.
func runExecOfThread(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n {
		command := exec.Command("/proc/self/exe")
		command.Env = append(os.Environ(), onLeader+"=1")
		command.Stdin = strings.NewReader("as-thread\x1f" + strings.Join(args[1:], "\x1f") + "\n")
		if out, err := command.CombinedOutput(); err != nil || len(out) > 0 {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
	return "", nil
}

// asThread makes calls in the leader, others in another thread, and there
// executes a file.
func asThread(args ...string) (string, error) {
	path, leader, thread := args[0], args[1], args[2]
	if !leads || unix.Gettid() != os.Getpid() {
		return "", errors.New("not in the leader")
	}
	if err := callThread(0, strings.Fields(leader), nil); err != nil {
		return "", err
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := callThread(0, strings.Fields(thread), nil)
		if err == nil {
			err = unix.Exec(path, []string{path}, nil)
		}
		failed <- err
	}()
	return "", <-failed
}

// runChild starts /bin/true n times in a new user namespace.
func runChild(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n {
		command := exec.Command("/bin/true")
		switch args[1] {
		case "clone":
			command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		case "unshare":
			command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWUSER}
		case "mapped":
			ids := []syscall.SysProcIDMap{{HostID: 0, Size: 1}}
			command.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
				GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
			}
		}
		if out, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
	return "", nil
}

// copyFile copies a program, with owner, group, mode and file capabilities.
func copyFile(from, to string, uid, gid int, mode uint32, capabilities []byte) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		return err
	}
	if err := unix.Chown(to, uid, gid); err != nil {
		return err
	}
	if err := unix.Chmod(to, mode); err != nil {
		return err
	}
	if capabilities == nil {
		return nil
	}
	return unix.Setxattr(to, "security.capability", capabilities, 0)
}
