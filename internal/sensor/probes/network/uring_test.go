// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// ringSend sends one byte by a request, in the submitting thread or a worker.
func ringSend(ring *testkit.Ring, fd int, to unix.Sockaddr, workers bool) error {
	const opSendmsg, async = 9, 1 << 4
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
	request := testkit.Request{Opcode: opSendmsg, FD: int32(fd), Address: uint64(uintptr(unsafe.Pointer(&header))), Length: 1}
	if workers {
		request.Flags = async
	}
	sent, err := ring.Do(request)
	if err == nil && sent != 1 {
		err = fmt.Errorf("sendmsg by a ring: result %d, want 1", sent)
	}
	return err
}

// io_uring sends without a call, in the submitting thread or in a worker.
func TestUDPUring(t *testing.T) {
	if ring, err := testkit.NewRing(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skip("io_uring is switched off")
		}
		t.Fatal(err)
	} else if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t)
	p := start(t, s.only())
	for _, workers := range []bool{false, true} {
		runUDP(t, s, p, ipv4, udpCase{"io_uring", func(p *pair) error {
			ring, err := testkit.NewRing()
			if err != nil {
				return err
			}
			err = ringSend(ring, p.client, p.at, workers)
			_, rerr := take(p.server, 0)
			return errors.Join(err, rerr, ring.Close())
		}, 1, 1})
	}
	if n := countKeys(p.Map("pending")); n != 0 {
		t.Errorf("%d sends still pending", n)
	}
}
