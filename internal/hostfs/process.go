// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is /proc/PID of one process: a Tree whose top is that directory,
// so ReadLimit(ctx, "cmdline", n) and Readlink(ctx, "exe") work on it. The
// kernel ties the directory to the process and not to the number: when the
// process has gone every access is ErrNotExist, even if another process has
// its pid by then (fs/proc/base.c). Close it.
type Process struct {
	*Tree
	Pid int
}

// Process opens /proc/PID.
func (r *Root) Process(pid int) (*Process, error) {
	name := strconv.Itoa(pid)
	t := r.Procfs
	dir, err := handleFile(t, name)
	if err != nil {
		return nil, pathError("open", "/proc/"+name, err)
	}
	top := *t
	top.path, top.dir = "", dir
	return &Process{Tree: &top, Pid: pid}, nil
}

// Adopt returns the same process with hung calls counted as those of r. Both
// share one directory: close one of them.
func (r *Root) Adopt(p *Process) *Process {
	t := *p.Tree
	t.calls = r.Procfs.calls
	return &Process{Tree: &t, Pid: p.Pid}
}

// Close releases the directory. Calls that still hang keep it until they end.
func (p *Process) Close() error { return p.dir.Close() }

// StartTime is when the process started, in clock ticks since boot: field 22
// of /proc/PID/stat, see proc_pid_stat(5). With the pid it names a process
// for as long as the host runs.
func (p *Process) StartTime(ctx context.Context) (uint64, error) {
	_, ticks, err := p.NameAndStart(ctx)
	return ticks, err
}

// NameAndStart is the name the process gave itself, any bytes but zero, and
// its StartTime, both from one read of /proc/PID/stat.
func (p *Process) NameAndStart(ctx context.Context) (string, uint64, error) {
	// The kernel waits for nothing to write that file, so no worker is needed.
	if err := context.Cause(ctx); err != nil {
		return "", 0, pathError("read", "stat", fmt.Errorf("%w: %w", ErrHung, err))
	}
	b, err := p.read("stat", ValueLimit)
	if err != nil {
		return "", 0, pathError("read", "/proc/"+strconv.Itoa(p.Pid)+"/stat", err)
	}
	name, ticks, err := parseStat(b)
	return name, ticks, pathError("parse", "/proc/"+strconv.Itoa(p.Pid)+"/stat", err)
}

var errNoStartTime = errors.New("no start time in field 22")

func parseStartTime(stat []byte) (uint64, error) {
	_, ticks, err := parseStat(stat)
	return ticks, err
}

// parseStat looks for the first and the last parenthesis: a process chooses
// its own name, parentheses and blanks included.
func parseStat(stat []byte) (string, uint64, error) {
	const fieldsBehindName = 22 - 2
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if end < 0 || open < 0 || open > end {
		return "", 0, errNoStartTime
	}
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < fieldsBehindName {
		return "", 0, errNoStartTime
	}
	ticks, err := strconv.ParseUint(f[fieldsBehindName-1], 10, 64)
	return string(stat[open+1 : end]), ticks, err
}

// OpenExe opens the file the process runs, also when its name is deleted. It
// is regular, and only the opening is bounded in time.
func (p *Process) OpenExe(ctx context.Context) (*os.File, error) {
	return do(ctx, p.calls, "open", "/proc/"+strconv.Itoa(p.Pid)+"/exe", func() (*os.File, error) {
		handle, err := p.follow("exe", 0)
		if err != nil {
			return nil, err
		}
		defer closeFD(handle)
		fd, _, err := reopenRegular(handle)
		if err != nil {
			return nil, err
		}
		return newFile(fd, "exe of "+strconv.Itoa(p.Pid))
	}, func(f *os.File) { _ = f.Close() })
}

// StatExe describes the file the process runs: Dev and Ino are the key of any
// cache of what is known about it.
func (p *Process) StatExe(ctx context.Context) (Info, error) {
	return do(ctx, p.calls, "stat", "/proc/"+strconv.Itoa(p.Pid)+"/exe", func() (Info, error) {
		return control(p.dir, func(base int) (Info, error) {
			var st unix.Stat_t
			if err := unix.Fstatat(base, "exe", &st, 0); err != nil {
				return Info{}, err
			}
			return info(&st), nil
		})
	}, nil)
}

// OpenNS opens a namespace of the process by its name in /proc/PID/ns, for
// setns(2). It needs CAP_SYS_PTRACE for processes of others.
func (p *Process) OpenNS(name string) (*os.File, error) {
	path := "/proc/" + strconv.Itoa(p.Pid) + "/ns/" + name
	fd, err := control(p.dir, func(base int) (int, error) {
		return openat(base, "ns/"+name, unix.O_RDONLY)
	})
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ProcRoot is the root file system of a process: a Tree like any other, in
// which no link leads out. Close it.
type ProcRoot struct{ *Tree }

// Close releases the root. Calls that still hang keep it until they end.
func (r *ProcRoot) Close() error { return r.dir.Close() }

// Root opens what /proc/PID/root leads to. It needs CAP_SYS_PTRACE for
// processes of others.
func (p *Process) Root(ctx context.Context) (*ProcRoot, error) {
	name := "/proc/" + strconv.Itoa(p.Pid) + "/root"
	return do(ctx, p.calls, "open", name, func() (*ProcRoot, error) {
		fd, err := p.follow("root", unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		dir := os.NewFile(uintptr(fd), name)
		return &ProcRoot{&Tree{dir: dir, calls: cmp.Or(p.calls, p.beyond), resolve: p.resolve}}, nil
	}, func(r *ProcRoot) { _ = r.Close() })
}

// follow opens a magic link of the process. The kernel provides the link, so
// it is the one place where following it is the purpose.
func (p *Process) follow(link string, flags int) (int, error) {
	return control(p.dir, func(base int) (int, error) {
		return openat(base, link, unix.O_PATH|flags)
	})
}

// handleFile resolves a directory to an O_PATH file.
func handleFile(t *Tree, name string) (*os.File, error) {
	fd, err := t.handle(name, true)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
