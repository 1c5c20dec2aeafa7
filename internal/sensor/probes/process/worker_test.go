// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// worker makes the real calls. Nothing in it may start a process that was not
// asked for; os/exec does, to find out what the kernel can do.
type worker struct {
	held    []int
	release func()
}

func (w *worker) actions() testkit.Worker {
	return testkit.Worker{
		"ping":    func(...string) (string, error) { return "", nil },
		"become":  become,
		"open":    open,
		"exec":    execute,
		"hold":    w.hold,
		"let-go":  w.letGo,
		"at":      executeAt,
		"forks":   forks,
		"unshare": forkInNamespace,
		"pivot":   pivot,
		"fail":    fail,
		"cpus":    onTwoCPUs,
		"hammer":  hammer,
		"threads": threads,
	}
}

// become executes another copy of the worker, in place, from a thread that is
// not the leader. The answer is given before; a ping tells that it is done.
func become(args ...string) (string, error) {
	path, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return "", err
	}
	argv := []*byte{path, nil}
	envp, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return "", err
	}
	for {
		failed := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked, so the next one is another
			if unix.Gettid() == os.Getpid() {
				failed <- nil
				select {}
			}
			fmt.Println("ok")
			_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)),
				uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
			failed <- errno
		}()
		if err := <-failed; err != nil {
			return "", err
		}
	}
}

// open: how many descriptors that the next exec closes, path.
func open(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n {
		if _, err := unix.Open(args[1], unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return "", err
		}
	}
	return "", nil
}

// attributes turns key=value words into what a child gets. close gives back
// the descriptors and ends what the child reads from.
func attributes(words []string) (attr *syscall.ProcAttr, rest []string, shut func(), err error) {
	var files []*os.File
	var peers []int
	shut = func() {
		for _, f := range files {
			_ = f.Close()
		}
		for _, fd := range peers {
			_ = unix.Close(fd)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, shut, err
	}
	files = append(files, null)
	attr = &syscall.ProcAttr{Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: &syscall.SysProcAttr{}}
	for i, word := range words {
		key, value, found := strings.Cut(word, "=")
		if !found {
			return attr, words[i:], shut, nil
		}
		switch key {
		case "stdin", "stdout", "stderr":
			fd, peer, err := endpoint(value)
			if err != nil {
				return nil, nil, shut, fmt.Errorf("%s: %w", word, err)
			}
			attr.Files[map[string]int{"stdin": 0, "stdout": 1, "stderr": 2}[key]] = uintptr(fd)
			peers = append(peers, fd, peer)
		case "dir":
			attr.Dir = value
		case "root":
			attr.Sys.Chroot = value
		case "namespace":
			attr.Sys.Cloneflags = unix.CLONE_NEWPID
		default:
			return nil, nil, shut, fmt.Errorf("no attribute %s", key)
		}
	}
	return nil, nil, shut, errors.New("nothing to execute")
}

// endpoint makes both ends of a connection: one for a child, and its peer.
func endpoint(kind string) (fd, peer int, err error) {
	var pair [2]int
	switch kind {
	case "pipe":
		err = unix.Pipe2(pair[:], unix.O_CLOEXEC)
	case "unix":
		pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case "netlink":
		pair[0], err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		pair[1] = -1
	case "raw":
		pair[0], err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		pair[1] = -1
	case "udp":
		pair[0], err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		pair[1] = -1
	case "tcp4":
		pair, err = connection(unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	case "tcp6":
		pair, err = connection(unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}})
	default:
		err = fmt.Errorf("no endpoint %s", kind)
	}
	return pair[0], pair[1], err
}

func connection(family int, address unix.Sockaddr) (pair [2]int, err error) {
	listener, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pair, err
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, address); err != nil {
		return pair, err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return pair, err
	}
	if address, err = unix.Getsockname(listener); err != nil {
		return pair, err
	}
	if pair[1], err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return pair, err
	}
	if err := unix.Connect(pair[1], address); err != nil {
		return pair, err
	}
	pair[0], _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	return pair, err
}

func reap(pid int) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	if status.Signaled() {
		return fmt.Errorf("process %d: %v", pid, status.Signal())
	}
	if status.ExitStatus() != 0 {
		return fmt.Errorf("process %d: exit status %d", pid, status.ExitStatus())
	}
	return nil
}

// execute: how often, attributes, path, arguments.
func execute(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	attr, argv, shut, err := attributes(args[1:])
	defer shut()
	if err != nil {
		return "", err
	}
	for range n {
		pid, err := syscall.ForkExec(argv[0], argv, attr)
		if err != nil {
			return "", err
		}
		if err := reap(pid); err != nil {
			return "", err
		}
	}
	return "", nil
}

// hold is execute of programs that wait for the end of their standard input.
// They stay until let go. Returns the process ids.
func (w *worker) hold(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	attr, argv, shut, err := attributes(args[1:])
	if err != nil {
		return "", err
	}
	before := w.release
	w.release = func() {
		shut()
		if before != nil {
			before()
		}
	}
	var pids []string
	for range n {
		pid, err := syscall.ForkExec(argv[0], argv, attr)
		if err != nil {
			return "", err
		}
		if err := waits(pid); err != nil {
			return "", err
		}
		w.held = append(w.held, pid)
		pids = append(pids, strconv.Itoa(pid))
	}
	return strings.Join(pids, " "), nil
}

// waits until a process sleeps, or its leader has ended: its exec closes what tells its parent that it
// works, and is over only later.
func waits(pid int) error {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, fields := stat(fmt.Sprintf("/proc/%d/stat", pid)); len(fields) > 0 && (fields[0] == "S" || fields[0] == "Z") {
			return nil
		}
	}
	return fmt.Errorf("process %d does not wait for its input", pid)
}

func (w *worker) letGo(...string) (string, error) {
	w.release()
	var errs []error
	for _, pid := range w.held {
		errs = append(errs, reap(pid))
	}
	w.release, w.held = nil, nil
	return "", errors.Join(errs...)
}

// image is what forkAndExecute needs, made before: the child may not
// allocate.
type image struct {
	dirfd      int
	path       *byte
	argv, envp []*byte
	flags      int
}

func newImage(dirfd int, path string, flags int) (*image, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	return &image{dirfd: dirfd, path: p, argv: []*byte{p, nil}, envp: []*byte{nil}, flags: flags}, nil
}

// forkAndExecute is a real fork from any thread, without the lock that makes
// Go's own one after another. A child has one thread, so it must not come to
// the scheduler: no function here may have a stack check.
//
//go:nosplit
func forkAndExecute(flags uintptr, p *image) (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	status := uintptr(0)
	if p != nil {
		syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(p.dirfd), uintptr(unsafe.Pointer(p.path)),
			uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envp[0])), uintptr(p.flags), 0)
		status = 127
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

func forkAndReap(flags uintptr, p *image) error {
	pid, errno := forkAndExecute(flags, p)
	if errno != 0 {
		return errno
	}
	return reap(pid)
}

// executeAt: how often, in which way, path. All of them are execveat(2).
func executeAt(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	p, shut, err := imageAt(args[1], args[2])
	if err != nil {
		return "", err
	}
	defer shut()
	for range n {
		if err := forkAndReap(0, p); err != nil {
			return "", err
		}
	}
	return "", nil
}

func imageAt(way, path string) (*image, func(), error) {
	if way == "dirfd" {
		fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, nil, err
		}
		p, err := newImage(fd, filepath.Base(path), 0)
		return p, func() { _ = unix.Close(fd) }, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY, 0) // a script must be readable after the exec
	if err != nil {
		return nil, nil, err
	}
	switch way {
	case "fd":
	case "deleted":
		err = unix.Unlink(path)
	case "memfd":
		fd, err = memfd(path)
	}
	if err != nil {
		return nil, nil, err
	}
	p, err := newImage(fd, "", unix.AT_EMPTY_PATH)
	return p, func() { _ = unix.Close(fd) }, err
}

// memfd has the content of a file. It is not writable when it is executed.
func memfd(path string) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("process-test", 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, content); err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
}

// forks: how often, flags of clone. The children end without an exec.
func forks(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	flags, err := strconv.ParseUint(args[1], 0, 64)
	if err != nil {
		return "", err
	}
	for range n {
		if err := forkAndReap(uintptr(flags), nil); err != nil {
			return "", err
		}
	}
	return "", nil
}

// forkInNamespace: how often; each child in a pid namespace that its parent
// made for its children before.
func forkInNamespace(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(own)
	for range n {
		if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
			return "", err
		}
		if err := forkAndReap(0, nil); err != nil {
			return "", err
		}
		if err := unix.Setns(own, unix.CLONE_NEWPID); err != nil {
			return "", err
		}
	}
	return "", nil
}

// pivot: how often, the root of a new mount namespace, path in it.
func pivot(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	p, err := newImage(unix.AT_FDCWD, args[2], 0)
	if err != nil {
		return "", err
	}
	return "", inThreads(1, func(int) error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount(args[1], args[1], "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Chdir(args[1]); err != nil {
			return err
		}
		if err := unix.PivotRoot(".", "."); err != nil {
			return err
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return err
		}
		for range n {
			if err := forkAndReap(0, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// fail: how often, path, the error that execve must return. Without a fork.
func fail(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	p, err := newImage(unix.AT_FDCWD, args[1], 0)
	if err != nil {
		return "", err
	}
	for range n {
		_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
			uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envp[0])))
		if unix.ErrnoName(errno) != args[2] {
			return "", fmt.Errorf("%v, not %s", errno, args[2])
		}
	}
	return "", nil
}

// onTwoCPUs: how often, path of a program that reads its standard input. Each
// is executed on one CPU and ends on the other.
func onTwoCPUs(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	runtime.LockOSThread() // never unlocked: the thread keeps its CPU
	for i := range n {
		if err := pin(0, i); err != nil {
			return "", err
		}
		attr, argv, shut, err := attributes([]string{"stdin=pipe", args[1]})
		if err != nil {
			return "", err
		}
		pid, err := syscall.ForkExec(argv[0], argv, attr)
		if err != nil {
			return "", err
		}
		if err := pin(pid, i+1); err != nil {
			return "", err
		}
		shut()
		if err := reap(pid); err != nil {
			return "", err
		}
	}
	return "", nil
}

func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	return unix.SchedSetaffinity(pid, &set)
}

// hammer: how often, path. From 8 threads at once, and half of the children
// end without an exec.
func hammer(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	p, err := newImage(unix.AT_FDCWD, args[1], 0)
	if err != nil {
		return "", err
	}
	return "", inThreads(8, func(thread int) error {
		for i := range n / 8 {
			if err := pin(0, thread+i); err != nil {
				return err
			}
			if err := forkAndReap(0, p); err != nil {
				return err
			}
			if err := forkAndReap(0, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func inThreads(n int, run func(thread int) error) error {
	done := make(chan error)
	for thread := range n {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends here
			done <- run(thread)
		}()
	}
	var errs []error
	for range n {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// threads: how many threads begin and end, 10 at a time.
func threads(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n / 10 {
		if err := inThreads(10, func(int) error { return nil }); err != nil {
			return "", err
		}
	}
	return "", nil
}
