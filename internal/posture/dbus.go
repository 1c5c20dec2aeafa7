// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A D-Bus client for the one question asked of systemd: method calls without
// arguments over a unix socket (D-Bus specification 1.0, "Message Protocol" and
// "Authentication Protocol"). The library for it, godbus, brings os/exec into
// the binary to start a session bus, and the exporter must not be able to
// execute anything.

const (
	// maxDBusMessage is the largest reply taken, in bytes. The protocol allows
	// 128 MiB; a list of 10,000 units has 3 MiB.
	maxDBusMessage = 16 << 20
	// maxDBusSkipped is how many signals and other messages may come before
	// the reply.
	maxDBusSkipped = 1000

	dbusCall        = 1
	dbusReturn      = 2
	dbusError       = 3
	dbusFixedHeader = 16
)

var errDBus = errors.New("not a valid D-Bus message")

// dbusConn is one connection. Not safe for concurrent use.
type dbusConn struct {
	conn   net.Conn
	in     *bufio.Reader
	serial uint32
}

// dbusMethod names a method; dest is empty on a connection without a bus.
type dbusMethod struct{ dest, path, iface, member string }

// newDBus authenticates as the user of the process on an open connection,
// which is closed if that fails. ctx bounds all that follows.
func newDBus(ctx context.Context, conn net.Conn) (*dbusConn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(DefaultDeadline)
	}
	c := &dbusConn{conn: conn, in: bufio.NewReader(conn)}
	err := conn.SetDeadline(deadline)
	if err == nil {
		err = c.auth()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *dbusConn) Close() error { return c.conn.Close() }

// auth is the EXTERNAL mechanism: the peer sees our uid in the socket.
func (c *dbusConn) auth() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := io.WriteString(c.conn, "\x00AUTH EXTERNAL "+uid+"\r\n"); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("D-Bus authentication: %w", err)
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("D-Bus authentication: refused with %.64q", strings.TrimSpace(string(line)))
	}
	_, err = io.WriteString(c.conn, "BEGIN\r\n")
	return err
}

// call calls a method without arguments and returns the body of the reply,
// which must have the signature.
func (c *dbusConn) call(m dbusMethod, signature string) (*dbusReader, error) {
	c.serial++
	if _, err := c.conn.Write(dbusCallMessage(c.serial, m)); err != nil {
		return nil, err
	}
	for range maxDBusSkipped {
		msg, err := readDBusMessage(c.in)
		if err != nil {
			return nil, fmt.Errorf("D-Bus call %s: %w", m.member, err)
		}
		if msg.replyTo != c.serial {
			continue
		}
		switch {
		case msg.kind == dbusError:
			return nil, fmt.Errorf("D-Bus call %s: %.128q", m.member, msg.errorName)
		case msg.kind == dbusReturn && msg.signature == signature:
			return msg.body, nil
		}
		return nil, fmt.Errorf("D-Bus call %s: reply with signature %.64q, not %q", m.member, msg.signature, signature)
	}
	return nil, fmt.Errorf("D-Bus call %s: no reply among %d messages", m.member, maxDBusSkipped)
}

// dbusCallMessage marshals a method call with an empty body, little-endian.
func dbusCallMessage(serial uint32, m dbusMethod) []byte {
	le := binary.LittleEndian
	b := []byte{'l', dbusCall, 0, 1}
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, serial)
	b = le.AppendUint32(b, 0)
	for _, f := range []struct {
		code  byte
		kind  byte
		value string
	}{{1, 'o', m.path}, {6, 's', m.dest}, {2, 's', m.iface}, {3, 's', m.member}} {
		if f.value == "" {
			continue
		}
		b = append(dbusPad(b, 8), f.code, 1, f.kind, 0)
		b = le.AppendUint32(dbusPad(b, 4), uint32(len(f.value)))
		b = append(append(b, f.value...), 0)
	}
	le.PutUint32(b[12:], uint32(len(b)-dbusFixedHeader))
	return dbusPad(b, 8)
}

func dbusPad(b []byte, n int) []byte {
	for len(b)%n != 0 {
		b = append(b, 0)
	}
	return b
}

// dbusMessage is a received message: what of its header matters.
type dbusMessage struct {
	kind                 byte
	replyTo              uint32
	errorName, signature string
	body                 *dbusReader
}

func readDBusMessage(in io.Reader) (dbusMessage, error) {
	var m dbusMessage
	fixed := make([]byte, dbusFixedHeader)
	if _, err := io.ReadFull(in, fixed); err != nil {
		return m, err
	}
	r := &dbusReader{b: fixed, order: binary.LittleEndian, pos: 4}
	switch fixed[0] {
	case 'l':
	case 'B':
		r.order = binary.BigEndian
	default:
		return m, errDBus
	}
	m.kind = fixed[1]
	bodyLen := r.u32()
	r.u32()
	fieldsLen := r.u32()
	if bodyLen > maxDBusMessage || fieldsLen > maxDBusMessage {
		return m, fmt.Errorf("%w: larger than %d bytes", errDBus, maxDBusMessage)
	}
	headerLen := (dbusFixedHeader + int(fieldsLen) + 7) &^ 7
	rest := make([]byte, headerLen-dbusFixedHeader+int(bodyLen))
	if _, err := io.ReadFull(in, rest); err != nil {
		return m, err
	}
	r.b = append(fixed, rest[:fieldsLen]...)
	m.fields(r)
	m.body = &dbusReader{b: rest[headerLen-dbusFixedHeader:], order: r.order}
	return m, r.err
}

// fields reads the header fields, of the types that the protocol defines for
// them: s, o, g and u.
func (m *dbusMessage) fields(r *dbusReader) {
	for r.err == nil && r.pos < len(r.b) {
		r.align(8)
		code, signature := r.byte(), r.signature()
		var text string
		var number uint32
		switch signature {
		case "s", "o":
			text = r.str()
		case "g":
			text = r.signature()
		case "u":
			number = r.u32()
		default:
			r.fail()
		}
		switch code {
		case 4:
			m.errorName = text
		case 5:
			m.replyTo = number
		case 8:
			m.signature = text
		}
	}
}

// dbusReader unmarshals. After an error, all it returns is zero.
type dbusReader struct {
	b     []byte
	pos   int
	order binary.ByteOrder
	err   error
}

func (r *dbusReader) fail() { r.err = errDBus }

func (r *dbusReader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b)-r.pos {
		r.fail()
		return nil
	}
	b := r.b[r.pos : r.pos+n]
	r.pos += n
	return b
}

func (r *dbusReader) align(n int) { r.take((n - r.pos%n) % n) }

func (r *dbusReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *dbusReader) u32() uint32 {
	r.align(4)
	if b := r.take(4); b != nil {
		return r.order.Uint32(b)
	}
	return 0
}

// str is a string or an object path: length, bytes, NUL.
func (r *dbusReader) str() string {
	n := r.u32()
	if n > maxDBusMessage {
		r.fail()
	}
	s := string(r.take(int(n)))
	r.take(1)
	return s
}

// signature has a length of one byte.
func (r *dbusReader) signature() string {
	s := string(r.take(int(r.byte())))
	r.take(1)
	return s
}

// array calls element until the array ends.
func (r *dbusReader) array(alignment int, element func()) {
	n := int(r.u32())
	r.align(alignment)
	end := r.pos + n
	if n > len(r.b)-r.pos {
		r.fail()
	}
	for r.err == nil && r.pos < end {
		element()
	}
}
