// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Asks NETLINK_NETFILTER for the tables, chains and rules of nftables
// (include/uapi/linux/netfilter/nf_tables.h). Needs CAP_NET_ADMIN. All rules
// come in one dump, and of a rule only what decides about a packet is decoded:
// a node of a cluster has tens of thousands.

const (
	netlinkTimeout = 5 * time.Second
	// netlinkBuffer is what the kernel fills at a time, in bytes; it gives no
	// more than 32 KiB. A dump walks the rules from the first one each time,
	// so a small buffer makes a long one very slow.
	netlinkBuffer = 64 << 10
	// dumpAttempts is how often a dump is repeated that a change interrupted.
	dumpAttempts = 4
	// maxStoredRules bounds what is kept; the rest is only counted.
	maxStoredRules = 50_000
	// maxVerdictMaps bounds the verdict maps whose elements are asked for.
	maxVerdictMaps = 256
)

// nftCache keeps the tables of the last run while the kernel's generation
// number, which every change of the rule set raises, stays the same.
type nftCache struct {
	known      bool
	generation uint32
	tables     ruleset
	limit      error
}

var errInterrupted = errors.New("changed during the dump")

// read returns the tables in the network namespace of the calling thread.
// limit says what is missing in them.
func (c *nftCache) read(ctx context.Context) (tables ruleset, limit, err error) {
	conn, err := dialNetlink(ctx, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, nil, fmt.Errorf("nftables: %w", err)
	}
	defer func() { _ = conn.Close() }()
	for range dumpAttempts {
		before, err := nftGeneration(conn)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil, nil // a kernel without nftables
		}
		if err != nil {
			return nil, nil, nftError(err)
		}
		if c.known && c.generation == before {
			return c.tables, c.limit, nil
		}
		tables, limit, err := nftTables(conn)
		after, errAfter := nftGeneration(conn)
		if errors.Is(err, errInterrupted) || errAfter == nil && after != before {
			continue
		}
		if err := errors.Join(err, errAfter); err != nil {
			return nil, nil, nftError(err)
		}
		*c = nftCache{true, before, tables, limit}
		return tables, limit, nil
	}
	return nil, nil, fmt.Errorf("nftables: the rules changed during each of %d attempts to read them", dumpAttempts)
}

func nftError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("nftables: %w: grant CAP_NET_ADMIN", err)
	}
	return fmt.Errorf("nftables: %w", err)
}

// dialNetlink opens a netlink socket whose calls end with ctx, or sooner.
func dialNetlink(ctx context.Context, family int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, &netlink.Config{MessageBufferSize: netlinkBuffer})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(netlinkTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// nfgenmsgLen is the length of struct nfgenmsg: family, version, resource id.
const nfgenmsgLen = 4

func nftRequest(message uint16, flags netlink.HeaderFlags, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

// nftDump sends a request and gives every answer to f: the family of the
// object and its attributes.
func nftDump(conn *netlink.Conn, request netlink.Message, f func(family byte, attributes []byte) error) error {
	if _, err := conn.Send(request); err != nil {
		return err
	}
	var problem error
	// The loop always runs to its end, or what is left of this dump would be
	// the answer to the next request.
	for m, err := range conn.ReceiveIter() {
		switch {
		case err != nil:
			return err
		case problem != nil:
		case m.Header.Flags&netlink.DumpInterrupted != 0:
			problem = errInterrupted
		case len(m.Data) < nfgenmsgLen:
			problem = fmt.Errorf("answer of %d bytes", len(m.Data))
		default:
			problem = f(m.Data[0], m.Data[nfgenmsgLen:])
		}
	}
	return problem
}

func nftGeneration(conn *netlink.Conn) (uint32, error) {
	var id uint32
	err := nftDump(conn, nftRequest(unix.NFT_MSG_GETGEN, 0, nil), func(_ byte, b []byte) error {
		return attributes(b, func(a *netlink.AttributeDecoder) {
			if a.Type() == unix.NFTA_GEN_ID {
				id = a.Uint32()
			}
		})
	})
	return id, err
}

// nftTables dumps the whole rule set. limit says what was left out of it.
func nftTables(conn *netlink.Conn) (tables ruleset, limit, err error) {
	d := nftDecoder{tables: make(map[string]*fwTable)}
	for _, step := range []struct {
		message uint16
		decode  func(family byte, attributes []byte) error
	}{
		{unix.NFT_MSG_GETTABLE, d.table}, {unix.NFT_MSG_GETCHAIN, d.chain}, {unix.NFT_MSG_GETRULE, d.rule},
	} {
		if err := nftDump(conn, nftRequest(step.message, netlink.Dump, nil), step.decode); err != nil {
			return nil, nil, err
		}
	}
	for _, m := range d.wanted {
		request, err := nftMapRequest(m)
		if err != nil {
			return nil, nil, err
		}
		err = nftDump(conn, request, func(_ byte, b []byte) error {
			verdicts, err := decodeElements(b)
			m.table.maps[m.name] = append(m.table.maps[m.name], verdicts...)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return d.list, d.limit, nil
}

func nftMapRequest(m verdictMap) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, m.table.name)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, m.name)
	b, err := e.Encode()
	request := nftRequest(unix.NFT_MSG_GETSETELEM, netlink.Dump, b)
	request.Data[0] = familyNumber(m.table.family)
	return request, err
}

// attributes calls f for each attribute of a message. Numbers are in network
// byte order.
func attributes(b []byte, f func(a *netlink.AttributeDecoder)) error {
	a, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		f(a)
	}
	return a.Err()
}
