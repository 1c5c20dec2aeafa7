// SPDX-License-Identifier: Apache-2.0

package version

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads exe, stat, cmdline, cwd, cgroup and root of /proc/PID:
// proc_pid(5).

// deletedSuffix is what the kernel puts behind the name of a removed file.
const deletedSuffix = " (deleted)"

// fileID names the content of a file on this host.
type fileID struct {
	dev, ino uint64
	modified time.Time
}

func idOf(i hostfs.Info) fileID { return fileID{i.Dev, i.Ino, i.ModTime} }

// subject is a process that is looked up.
type subject struct {
	pid   int
	id    Identity
	link  string
	start uint64
	exe   fileID
	old   *seen
	proc  *hostfs.Process
	root  *hostfs.ProcRoot
	// rootID is the top directory of its root.
	rootID fileID
	// replaced: the name leads to another file than the one that runs, so the
	// package database speaks of the other.
	replaced  bool
	program   program
	programID fileID
	container string
	unit      string
	// complete: everything that could be asked was asked.
	complete bool
	got      found
}

// open reads what is cheap. A process that may not be inspected has a name
// only; that is no error. /proc always answers, so it is read in the time of
// the caller; the executable may lie on a file system that does not.
func (f *Finder) open(ctx, budget context.Context, root *hostfs.Root, pid int) (*subject, error) {
	s := &subject{pid: pid, id: Identity{Source: None}}
	p, err := root.Process(pid)
	if err != nil {
		return s, err
	}
	s.proc = f.root.Adopt(p)
	if s.id.Name, s.start, err = p.NameAndStart(ctx); err != nil {
		s.close()
		return s, err
	}
	if s.link, err = p.Readlink(ctx, "exe"); err != nil {
		return s, nil
	}
	s.id.Exe = strings.TrimSuffix(s.link, deletedSuffix)
	old, ok := f.byProcess[pid]
	if !ok || old.start != s.start || old.link != s.link || !f.now().Before(old.until) {
		return s, nil
	}
	i, err := s.proc.StatExe(budget)
	if err == nil && old.exe == idOf(i) || errors.Is(err, hostfs.ErrHung) {
		s.old = &old
	}
	return s, nil
}

func (s *subject) close() {
	if s.root != nil {
		_ = s.root.Close()
	}
	if s.proc != nil {
		_ = s.proc.Close()
	}
}

// inspected is what inspect read.
type inspected struct {
	exe, rootID, programID fileID
	root                   *hostfs.ProcRoot
	replaced               bool
	program                program
	container, unit        string
	// err says that something was not read after exe.
	err error
}

// inspect reads the rest of a process that was not seen before, all of it in
// the time of one call.
func (s *subject) inspect(ctx context.Context) error {
	name := s.id.Exe
	got, err := hostfs.BatchOf(ctx, s.proc, func(p *hostfs.Process) (inspected, error) {
		return inspect(ctx, p, name)
	}, func(late inspected) {
		if late.root != nil {
			_ = late.root.Close()
		}
	})
	if err != nil {
		return err
	}
	s.exe, s.rootID, s.programID, s.root = got.exe, got.rootID, got.programID, got.root
	s.replaced, s.program, s.container, s.unit = got.replaced, got.program, got.container, got.unit
	return got.err
}

// inspect fails if the executable cannot be looked at.
func inspect(ctx context.Context, p *hostfs.Process, exe string) (s inspected, err error) {
	i, err := p.StatExe(ctx)
	if err != nil {
		return s, err
	}
	s.exe = idOf(i)
	if b, err := p.ReadLimit(ctx, "cgroup", hostfs.ValueLimit); err == nil {
		s.container, s.unit = parseCgroup(string(b))
	}
	if s.root, s.err = p.Root(ctx); s.err != nil {
		return s, nil
	}
	s.err = s.read(ctx, p, exe)
	return s, nil
}

func (s *inspected) read(ctx context.Context, p *hostfs.Process, exe string) error {
	return hostfs.Direct(s.root.Tree, func(root *hostfs.Tree) error {
		i, err := root.Stat(ctx, "/")
		if err != nil {
			return err
		}
		s.rootID = idOf(i)
		// The name may lead elsewhere: upgraded, mounted over, or another root.
		named, err := root.Stat(ctx, exe)
		s.replaced = err != nil || named.Dev != s.exe.dev || named.Ino != s.exe.ino
		if interpreter(exe) == nil {
			return nil
		}
		b, err := p.ReadLimit(ctx, "cmdline", MaxRead)
		if err != nil {
			return err
		}
		s.program = parseCommand(exe, string(b))
		if s.program.path == "" {
			return nil
		}
		if s.program.cwd, err = p.Readlink(ctx, "cwd"); err != nil {
			return err
		}
		if s.program.kind == kindClass || s.program.kind == kindModule {
			return nil
		}
		if !path.IsAbs(s.program.path) {
			s.program.path = path.Join(s.program.cwd, s.program.path)
		}
		if i, err := root.Stat(ctx, s.program.path); err == nil {
			s.programID = idOf(i)
		}
		return nil
	})
}

// finish fills in what no version source named.
func (s *subject) finish() {
	if s.got.version != "" || s.got.app != "" {
		s.id.App, s.id.Version = s.got.app, s.got.version
	}
	s.id.Source = None
	if s.id.Version != "" {
		s.id.Source = s.got.source
	}
	if s.id.App == "" && s.id.Version == "" {
		s.id.App = s.unit
	}
	if s.id.App == "" {
		s.id.App = strings.ToLower(s.id.Name)
	}
}
