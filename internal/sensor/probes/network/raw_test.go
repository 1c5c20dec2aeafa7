// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"fmt"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

// rawConnect is connect(2) with an address of any bytes.
func rawConnect(fd int, address []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
	if errno != 0 {
		return errno
	}
	return nil
}

// sendmmsg sends one byte to each address with a single call.
func sendmmsg(fd int, to ...unix.Sockaddr) error {
	type message struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	data := []byte("x")
	part := unix.Iovec{Base: &data[0]}
	part.SetLen(len(data))
	messages := make([]message, len(to))
	names := make([][]byte, len(to))
	for i, address := range to {
		names[i] = rawAddress(address)
		messages[i].header = unix.Msghdr{Name: &names[i][0], Namelen: uint32(len(names[i])), Iov: &part, Iovlen: 1}
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if int(n) != len(to) {
		return fmt.Errorf("sent %d of %d", n, len(to))
	}
	return nil
}

// rawAddress is an address as the kernel reads it.
func rawAddress(address unix.Sockaddr) []byte {
	var out []byte
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		out = binary.NativeEndian.AppendUint16(out, unix.AF_INET)
		out = binary.BigEndian.AppendUint16(out, uint16(a.Port))
		out = append(append(out, a.Addr[:]...), make([]byte, 8)...)
	case *unix.SockaddrInet6:
		out = binary.NativeEndian.AppendUint16(out, unix.AF_INET6)
		out = binary.BigEndian.AppendUint16(out, uint16(a.Port))
		out = append(append(append(out, make([]byte, 4)...), a.Addr[:]...), make([]byte, 4)...)
	}
	return out
}

// rows reads the gauge that Collect adds, by its labels.
func rows(t testing.TB, p *probe.Probe) map[string]float64 {
	t.Helper()
	batch := metric.NewBatch(0)
	p.Spec().Collect(p, batch)
	channel := make(chan prometheus.Metric, batch.Len())
	batch.Collect(channel)
	close(channel)
	out := map[string]float64{}
	for row := range channel {
		var text dto.Metric
		if err := row.Write(&text); err != nil {
			t.Fatal(err)
		}
		out[text.Label[0].GetValue()+" "+text.Label[1].GetValue()] = text.Gauge.GetValue()
	}
	return out
}

func uintptrOf(b *[16]byte) uintptr { return uintptr(unsafe.Pointer(b)) }
