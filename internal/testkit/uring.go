// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is an io_uring of one entry, io_uring_setup(2), for tests that do
// without a system call what others do by one. Not safe for concurrent use.
type Ring struct {
	fd       int
	rings    []byte
	requests []byte
	offsets  ringOffsets
}

// ringOffsets is struct io_uring_params (include/uapi/linux/io_uring.h).
type ringOffsets struct {
	Entries, CQEntries, Flags, CPU, Idle, Features, WQ uint32
	_                                                  [3]uint32
	SQ                                                 struct {
		Head, Tail, Mask, Entries, Flags, Dropped, Array, _ uint32
		_                                                   uint64
	}
	CQ struct {
		Head, Tail, Mask, Entries, Overflow, CQEs, Flags, _ uint32
		_                                                   uint64
	}
}

// Request is struct io_uring_sqe, as far as the tests fill it.
type Request struct {
	Opcode, Flags uint8
	Priority      uint16
	FD            int32
	Offset        uint64 // also: second address
	Address       uint64
	Length        uint32 // also: mode, or second descriptor
	OpFlags       uint32
	UserData      uint64
	_             [24]byte
}

// Operations of io_uring that the tests use.
const (
	RingOpenat   = 18
	RingRenameat = 35
	RingUnlinkat = 36
)

// NewRing makes a ring. It fails with EPERM or ENOSYS where io_uring is
// switched off.
func NewRing() (*Ring, error) {
	r := &Ring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&r.offsets)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r.fd = int(fd)
	const rings, requests = 0, 0x10000000 // IORING_OFF_SQ_RING, IORING_OFF_SQES
	var err error
	if r.rings, err = unix.Mmap(r.fd, rings, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the rings: %w", err)
	}
	r.requests, err = unix.Mmap(r.fd, requests, 64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

// Do submits one request and returns its result, as the system call would.
func (r *Ring) Do(request Request) (int32, error) {
	*(*Request)(unsafe.Pointer(&r.requests[0])) = request
	*r.word(r.offsets.SQ.Array) = 0
	*r.word(r.offsets.SQ.Tail)++
	head := r.word(r.offsets.CQ.Head)
	for submit := uintptr(1); atomic.LoadUint32(r.word(r.offsets.CQ.Tail)) == *head; submit = 0 {
		// A signal ends the wait early, with the request under way.
		const getEvents = 1
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, getEvents, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
	entry := r.offsets.CQ.CQEs + (*head&*r.word(r.offsets.CQ.Mask))*16
	result := int32(*r.word(entry + 8))
	*head++
	return result, nil
}

func (r *Ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }

// Close unmaps and closes the ring.
func (r *Ring) Close() error {
	return errors.Join(unix.Munmap(r.rings), unix.Munmap(r.requests), unix.Close(r.fd))
}
