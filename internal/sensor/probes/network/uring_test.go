// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring is an io_uring of one entry, io_uring_setup(2).
type uring struct {
	fd                   int
	submission, requests []byte
	tail, array          uint32
}

func newUring() (*uring, error) {
	var parameters struct {
		entries, cqEntries, flags, cpu, idle, features, wq uint32
		_                                                  [3]uint32
		head, tail, mask, ringEntries, sqFlags, dropped    uint32
		array                                              uint32
		_                                                  [3]uint32
		_                                                  [40]byte
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 {
		return nil, errno
	}
	const ring, entries = 0, 0x10000000 // IORING_OFF_SQ_RING, IORING_OFF_SQES
	u := &uring{fd: int(fd), tail: parameters.tail, array: parameters.array}
	var err error
	if u.submission, err = unix.Mmap(u.fd, ring, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	u.requests, err = unix.Mmap(u.fd, entries, 64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return u, err
}

// sendmsg submits one send and waits for it.
func (u *uring) sendmsg(fd int, to unix.Sockaddr, workers bool) error {
	const opSendmsg, async, wait = 9, 1 << 4, 1
	data := []byte("x")
	part := unix.Iovec{Base: &data[0], Len: 1}
	name := rawAddress(to)
	header := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &part, Iovlen: 1}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&data[0])
	pin.Pin(&part)
	pin.Pin(&name[0])
	pin.Pin(&header)
	clear(u.requests)
	u.requests[0] = opSendmsg
	if workers {
		u.requests[1] = async
	}
	*(*int32)(unsafe.Pointer(&u.requests[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&u.requests[16])) = uint64(uintptr(unsafe.Pointer(&header)))
	*(*uint32)(unsafe.Pointer(&u.requests[24])) = 1
	*(*uint32)(unsafe.Pointer(&u.submission[u.array])) = 0
	*(*uint32)(unsafe.Pointer(&u.submission[u.tail]))++
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, wait, 0, 0)
	if errno != 0 || n != 1 {
		return fmt.Errorf("io_uring_enter: %d, %w", n, errno)
	}
	return nil
}

func (u *uring) close() error {
	return errors.Join(unix.Munmap(u.submission), unix.Munmap(u.requests), unix.Close(u.fd))
}

// io_uring sends without a call, in the submitting thread or in a worker.
func TestUDPUring(t *testing.T) {
	if u, err := newUring(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skip("io_uring is switched off")
		}
		t.Fatal(err)
	} else if err := u.close(); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t)
	p := start(t, s.only())
	for _, workers := range []bool{false, true} {
		runUDP(t, s, p, ipv4, udpCase{"io_uring", func(p *pair) error {
			u, err := newUring()
			if err != nil {
				return err
			}
			err = u.sendmsg(p.client, p.at, workers)
			_, rerr := take(p.server, 0)
			// The completion's result is not looked at: the datagram is there.
			return errors.Join(err, rerr, u.close())
		}, 1, 1})
	}
	if n := countKeys(p.Map("pending")); n != 0 {
		t.Errorf("%d sends still pending", n)
	}
}
