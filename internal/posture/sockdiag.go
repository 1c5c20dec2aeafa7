// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Asks the kernel for the sockets of its network namespace: sock_diag(7),
// linux/inet_diag.h. The kernel filters by state, so a host with a million
// connections costs nothing when only listeners are wanted.

// Socket states, from include/net/tcp_states.h.
const (
	stateEstablished = 1
	stateClose       = 7
	stateListen      = 10
)

const (
	diagRequestSize = 56
	diagMessageSize = 72
	diagV6Only      = 11 // INET_DIAG_SKV6ONLY, linux/inet_diag.h
	maxSockets      = 1 << 16
)

// socket is one entry of a dump.
type socket struct {
	protocol string // tcp, tcp6, udp, udp6
	state    uint8
	addr     netip.Addr
	port     uint16
	inode    uint32
	iface    uint32
	v6only   bool
}

// errTooManySockets comes with the sockets that were read before the cap.
var errTooManySockets = fmt.Errorf("more than %d sockets: the rest is left out", maxSockets)

// dumpSockets lists the TCP sockets in these states (a mask by state number)
// and the UDP sockets that are not connected, which are those that receive
// from anybody. A protocol the kernel does not have contributes none.
func dumpSockets(tcpStates uint32) ([]socket, error) {
	var out []socket
	for _, d := range []struct {
		name             string
		family, protocol uint8
		states           uint32
	}{
		{"tcp", unix.AF_INET, unix.IPPROTO_TCP, tcpStates},
		{"tcp6", unix.AF_INET6, unix.IPPROTO_TCP, tcpStates},
		{"udp", unix.AF_INET, unix.IPPROTO_UDP, 1 << stateClose},
		{"udp6", unix.AF_INET6, unix.IPPROTO_UDP, 1 << stateClose},
	} {
		full := false
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddData(diagRequest{d.family, d.protocol, d.states})
		err := req.ExecuteIter(unix.NETLINK_INET_DIAG, 0, func(b []byte) bool {
			if len(out) >= maxSockets {
				full = true
				return false
			}
			if s, ok := parseSocket(b); ok {
				s.protocol = d.name
				out = append(out, s)
			}
			return true
		})
		switch {
		case full:
			return out, errTooManySockets
		case errors.Is(err, unix.ENOENT):
			// No IPv6, or no diagnostics for the protocol.
		// A table that changed while it was read is complete but for what
		// changed.
		case err != nil && !errors.Is(err, nl.ErrDumpInterrupted):
			return nil, fmt.Errorf("sock_diag dump of %s sockets: %w", d.name, err)
		}
	}
	return out, nil
}

// diagRequest is struct inet_diag_req_v2 for a dump.
type diagRequest struct {
	family, protocol uint8
	states           uint32
}

func (r diagRequest) Len() int { return diagRequestSize }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = r.family, r.protocol
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

// parseSocket reads struct inet_diag_msg and its attributes.
func parseSocket(b []byte) (socket, bool) {
	if len(b) < diagMessageSize {
		return socket{}, false
	}
	s := socket{
		state: b[1],
		port:  binary.BigEndian.Uint16(b[4:]),
		iface: binary.NativeEndian.Uint32(b[40:]),
		inode: binary.NativeEndian.Uint32(b[68:]),
	}
	switch b[0] {
	case unix.AF_INET:
		s.addr = netip.AddrFrom4([4]byte(b[8:12]))
	case unix.AF_INET6:
		s.addr = netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return socket{}, false
	}
	for a := b[diagMessageSize:]; len(a) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(a))
		if size < unix.SizeofRtAttr || size > len(a) {
			break
		}
		if binary.NativeEndian.Uint16(a[2:]) == diagV6Only && size > unix.SizeofRtAttr {
			s.v6only = a[unix.SizeofRtAttr] != 0
		}
		a = a[min((size+3)&^3, len(a)):]
	}
	return s, true
}

// listens tells whether anybody can reach the socket without being asked.
func (s socket) listens() bool {
	return s.state == stateListen || s.protocol[:3] == "udp" && s.state == stateClose
}
