// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
)

// Reads the links of /proc/PID/fd: proc_pid_fd(5). A socket is
// "socket:[INODE]" there, with the inode number that sock_diag reports.

// socketOwners maps the inodes of the sockets to the lowest pid that has them
// open, in one pass over all processes that ends when nothing is left to find.
// The error says that some may have been missed.
func socketOwners(ctx context.Context, in *Input, sockets []socket) (map[uint32]int, error) {
	want := make(map[uint32]bool, len(sockets))
	for _, s := range sockets {
		if s.inode != 0 {
			want[s.inode] = true
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	pids, err := in.Pids(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	owner := make(map[uint32]int, len(want))
	denied := 0
	for _, pid := range pids {
		if len(want) == 0 || ctx.Err() != nil {
			break
		}
		if err := ownedBy(ctx, in, pid, want, owner); errors.Is(err, hostfs.ErrPermission) {
			denied++
		}
	}
	return owner, ownerless(len(want), denied)
}

// ownedBy moves the sockets of one process from want to owner. A process that
// goes meanwhile had none.
func ownedBy(ctx context.Context, in *Input, pid int, want map[uint32]bool, owner map[uint32]int) error {
	dir, err := in.Procfs.OpenDir(ctx, strconv.Itoa(pid)+"/fd")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		link, err := dir.Readlink(name)
		if errors.Is(err, hostfs.ErrPermission) {
			return err
		}
		if err != nil {
			continue
		}
		if inode, ok := parseSocketLink(link); ok && want[inode] {
			owner[inode] = pid
			delete(want, inode)
		}
	}
	return nil
}

func parseSocketLink(link string) (uint32, bool) {
	rest, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	digits, ok := strings.CutSuffix(rest, "]")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil
}
