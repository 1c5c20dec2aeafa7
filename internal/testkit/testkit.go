// SPDX-License-Identifier: Apache-2.0

// Package testkit is what the tests of the runtime half share: checked skips,
// a cgroup to which counting is restricted, and workers, which are the test
// binary run again inside that cgroup to make the real system calls.
package testkit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
)

// workerVariable tells the test binary which worker to be.
const workerVariable = "SECURITY_EXPORTER_TEST_WORKER"

// Worker is a set of actions that a worker process carries out on request.
// An action gets its arguments and returns one line.
type Worker map[string]func(args ...string) (string, error)

// Main is for TestMain. It is the worker if the binary was started as one.
// Otherwise it runs the tests, and fails them if they leave BPF objects open.
func Main(m *testing.M, workers map[string]Worker) {
	if name := os.Getenv(workerVariable); name != "" {
		serve(workers[name])
		return
	}
	// Before 5.11 the maps count against it; where it may not be raised, they do not.
	_ = rlimit.RemoveMemlock()
	code := m.Run()
	if left := openBPF(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left open: %v\n", left)
		code = 1
	}
	os.Exit(code)
}

func openBPF() []string {
	var left []string
	for range 2 { // finalizers of what a test dropped
		runtime.GC()
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "anon_inode:bpf") {
			left = append(left, target)
		}
	}
	return left
}

// serve carries out one action for each line of standard input.
func serve(worker Worker) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Split(in.Text(), "\x1f")
		action, ok := worker[words[0]]
		if !ok {
			fmt.Printf("error no action %q\n", words[0])
			continue
		}
		out, err := action(words[1:]...)
		if err != nil {
			fmt.Printf("error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("ok %s\n", out)
	}
}

// RequireBPF skips a test that may not load BPF programs. The skip is checked:
// root on a kernel with BTF must be able to, so it fails there instead.
func RequireBPF(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF programs")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("needs a kernel with BTF")
	}
}

var inspected = sync.OnceValue(func() *probe.Host { return probe.Inspect("/proc", "/sys", "/") })

// Inspect looks at the running kernel, once for all tests of the binary: its
// types take a second to read where the machine is emulated. Each test gets a
// Host of its own, which it may change.
func Inspect(t testing.TB) *probe.Host {
	t.Helper()
	RequireBPF(t)
	host := *inspected()
	return &host
}

// Cgroup is a cgroup made for one test, of the v2 hierarchy but for NewLegacyCgroup.
type Cgroup struct {
	Path string
	// ID is what bpf_get_current_cgroup_id returns inside it.
	ID uint64
}

// NewCgroup makes a cgroup below the host's root. It is removed at the end of
// the test, when its processes are gone.
func NewCgroup(t testing.TB, host *probe.Host) *Cgroup {
	t.Helper()
	return NewCgroupNamed(t, host, fmt.Sprintf("security-exporter-test-%d", os.Getpid()))
}

// NewCgroupNamed is NewCgroup with a name of the caller's, which may have
// several components.
func NewCgroupNamed(t testing.TB, host *probe.Host, name string) *Cgroup {
	t.Helper()
	if host.CgroupRoot == "" {
		t.Skip("needs the root of a cgroup v2 hierarchy")
	}
	parent := host.CgroupRoot
	components := strings.Split(name, "/")
	for _, component := range components[:len(components)-1] {
		parent = filepath.Join(parent, component)
		if err := os.Mkdir(parent, 0o755); err == nil {
			t.Cleanup(func() { _ = os.Remove(parent) })
		}
	}
	path, err := os.MkdirTemp(parent, components[len(components)-1]+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Errorf("a worker outlived its test: %v", err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return &Cgroup{Path: path, ID: st.Ino}
}

// NewLegacyCgroup makes a cgroup in the version 1 hierarchy that events have
// ids of. Processes are moved into it by Join. It is removed at the end of the
// test, if it is still there.
func NewLegacyCgroup(t testing.TB, host *probe.Host, name string) *Cgroup {
	t.Helper()
	if host.Legacy.Root == "" {
		t.Skip("needs a hierarchy of cgroup version 1 with a controller")
	}
	path := host.Legacy.Root
	for component := range strings.SplitSeq(name, "/") {
		path = filepath.Join(path, component)
		made := path
		err := os.Mkdir(made, 0o755)
		if errors.Is(err, unix.EROFS) {
			t.Skip("needs a hierarchy of cgroup version 1 that can be written")
		}
		if err == nil {
			t.Cleanup(func() { _ = os.Remove(made) })
		} else if !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return &Cgroup{Path: path, ID: st.Ino}
}

// Join moves a process into the cgroup.
func (c *Cgroup) Join(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// Process is a running worker.
type Process struct {
	t       testing.TB
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	errs    bytes.Buffer
}

// Start starts a worker inside the cgroup. It ends with the test at the latest.
func (c *Cgroup) Start(t testing.TB, worker string) *Process {
	t.Helper()
	return c.StartWith(t, worker, nil)
}

// StartWith is Start with process attributes of the caller's.
func (c *Cgroup) StartWith(t testing.TB, worker string, attributes *syscall.SysProcAttr) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if attributes == nil {
		attributes = &syscall.SysProcAttr{}
	}
	attributes.UseCgroupFD, attributes.CgroupFD = true, int(folder.Fd())
	p := &Process{t: t, command: exec.Command(self)}
	p.command.Env = append(os.Environ(), workerVariable+"="+worker)
	p.command.SysProcAttr = attributes
	p.command.Stderr = &p.errs
	if p.in, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	t.Cleanup(p.Stop)
	return p
}

// PID is the worker's thread group id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Try carries out an action in the worker and returns its answer.
func (p *Process) Try(action string, args ...string) (string, error) {
	line := strings.Join(append([]string{action}, args...), "\x1f")
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return "", fmt.Errorf("worker is gone: %w: %s", err, p.errs.String())
	}
	if !p.out.Scan() {
		return "", fmt.Errorf("worker ended during %s: %s", action, p.errs.String())
	}
	verdict, answer, _ := strings.Cut(p.out.Text(), " ")
	if verdict != "ok" {
		return "", errors.New(answer)
	}
	return answer, nil
}

// Do is Try that fails the test.
func (p *Process) Do(action string, args ...string) string {
	p.t.Helper()
	answer, err := p.Try(action, args...)
	if err != nil {
		p.t.Fatalf("%s %q: %v", action, args, err)
	}
	return answer
}

// Stop lets the worker end and waits for it. A second call does nothing.
func (p *Process) Stop() {
	if p.in == nil {
		return
	}
	_ = p.in.Close()
	p.in = nil
	_ = p.command.Wait()
}
