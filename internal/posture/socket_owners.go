// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads the links of /proc/PID/fd: proc_pid_fd(5). A socket is
// "socket:[INODE]" there, with the inode number that sock_diag reports.

// A socket that no process has, such as one of the kernel, or that only
// processes have which may not be seen, is looked for again after recheck, and
// then after twice the time as before, up to maxRecheck: each time costs a pass
// over all descriptors.
const (
	recheck    = 5 * time.Minute
	maxRecheck = 80 * time.Minute
)

// lostSocket is one that was not found, and when it is looked for again.
type lostSocket struct {
	until time.Time
	wait  time.Duration
}

// holder is where a socket was found: a descriptor of a process.
type holder struct {
	pid int
	fd  string
}

// owners remembers where sockets were found. A descriptor that still leads to
// the socket is its owner still, so a run where nothing changed costs one
// system call for each socket and one for each process; anything new costs one
// pass over all descriptors, however many sockets are new.
type owners struct {
	held   map[uint32]holder
	nobody map[uint32]lostSocket
	// denied is the number of processes that the last pass could not look into.
	denied int
}

// owned is the answer of owners.
type owned struct {
	// pids has the owner of each inode.
	pids map[uint32]int
	// same are the owners that are the processes of the last time, with the
	// text of their exe link.
	same map[int]string
}

// find maps the inodes of the sockets to the process that has them open: the
// one with the lowest pid when the socket was first seen. The error says that
// some may have been missed.
func (o *owners) find(ctx context.Context, in *Input, sockets []socket) (owned, error) {
	if len(sockets) == 0 {
		o.held, o.nobody = nil, nil
		return owned{}, nil
	}
	proc, err := in.Procfs.OpenDir(ctx, "/")
	if err != nil {
		return owned{}, err
	}
	defer func() { _ = proc.Close() }()
	held, nobody := make(map[uint32]holder, len(sockets)), make(map[uint32]lostSocket)
	want := make(map[uint32]bool)
	same := make(map[int]bool)
	for _, s := range sockets {
		if s.inode == 0 {
			continue
		}
		h, found := o.held[s.inode]
		lost, missed := o.nobody[s.inode]
		switch {
		case found && h.still(proc, s.inode):
			held[s.inode] = h
			same[h.pid] = true
		case missed && in.Now().Before(lost.until):
			nobody[s.inode] = lost
		default:
			want[s.inode] = true
		}
	}
	if len(want) > 0 {
		denied, err := pass(ctx, in, proc, want, held)
		if err != nil {
			return owned{}, err
		}
		o.denied = denied
	}
	if ctx.Err() == nil {
		for inode := range want {
			wait := min(max(recheck, 2*o.nobody[inode].wait), maxRecheck)
			nobody[inode] = lostSocket{in.Now().Add(wait), wait}
		}
	}
	o.held, o.nobody = held, nobody
	out := owned{make(map[uint32]int, len(held)), make(map[int]string, len(same))}
	for inode, h := range held {
		out.pids[inode] = h.pid
	}
	for pid := range same {
		if link, err := proc.LinkOfProcess(pid, "exe"); err == nil {
			out.same[pid] = link
		}
	}
	return out, ownerless(len(nobody), o.denied)
}

func (h holder) still(proc *hostfs.Dir, inode uint32) bool {
	link, err := proc.LinkOfProcess(h.pid, "fd/"+h.fd)
	if err != nil {
		return false
	}
	got, ok := parseSocketLink([]byte(link))
	return ok && got == inode
}

// pass goes over the descriptors of all processes, in the order of their pids,
// until nothing is left to find. It moves what it finds from want to held and
// returns the number of processes it may not look into.
func pass(ctx context.Context, in *Input, proc *hostfs.Dir, want map[uint32]bool, held map[uint32]holder) (denied int, err error) {
	pids, err := in.Pids(ctx)
	if err != nil {
		return 0, err
	}
	slices.Sort(pids)
	for _, pid := range pids {
		if len(want) == 0 || ctx.Err() != nil {
			break
		}
		if err := heldBy(proc, pid, want, held); errors.Is(err, hostfs.ErrPermission) {
			denied++
		}
	}
	return denied, nil
}

// heldBy looks through one process. One that goes meanwhile had none.
func heldBy(proc *hostfs.Dir, pid int, want map[uint32]bool, held map[uint32]holder) error {
	dir, err := proc.OfProcess(pid, "fd")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Links(func(name, text []byte) bool {
		if inode, ok := parseSocketLink(text); ok && want[inode] {
			held[inode] = holder{pid, string(name)}
			delete(want, inode)
		}
		return len(want) > 0
	})
}

func parseSocketLink(link []byte) (uint32, bool) {
	rest, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	digits, ok := bytes.CutSuffix(rest, []byte("]"))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 32)
	return uint32(n), err == nil
}
