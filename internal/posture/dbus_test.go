// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// fakeUnit is a row of ListUnits, in the field order of its signature.
type fakeUnit struct {
	Name, Description, Load, Active, Sub, Followed string
	Path                                           dbus.ObjectPath
	Job                                            uint32
	JobType                                        string
	JobPath                                        dbus.ObjectPath
}

func fakeUnits() []fakeUnit {
	out := []fakeUnit{
		{"ssh.service", "OpenBSD Secure Shell server", "loaded", "active", "running", "", "/u/ssh", 0, "", "/"},
		{"cron.service", "", "loaded", "failed", "failed", "", "/u/cron", 7, "start", "/j/7"},
	}
	for i := range 2000 {
		out = append(out, fakeUnit{fmt.Sprintf("filler-%d.service", i), strings.Repeat("x", i%50), "loaded", "inactive", "dead", "", "/u/f", 0, "", "/"})
	}
	return out
}

func checkFakeUnits(t *testing.T, got map[string]unitActivity) {
	t.Helper()
	if len(got) != 2002 || got["ssh.service"] != (unitActivity{"loaded", "active", "running"}) ||
		got["cron.service"] != (unitActivity{"loaded", "failed", "failed"}) ||
		got["filler-1999.service"] != (unitActivity{"loaded", "inactive", "dead"}) {
		t.Errorf("%d units, ssh %+v, cron %+v", len(got), got["ssh.service"], got["cron.service"])
	}
}

// systemd's own socket: no bus and no Hello. The messages are those of a
// library that is not ours, in both byte orders.
func TestListUnitsPrivate(t *testing.T) {
	t.Parallel()
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		root := hostWithSocket(t, systemdSocket, func(conn net.Conn) {
			call, in := acceptDBus(t, conn)
			if call.Headers[dbus.FieldMember].Value() != "ListUnits" {
				t.Errorf("call %v", call)
			}
			// A signal comes first.
			send(t, conn, order, &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath("/x")),
				dbus.FieldInterface: dbus.MakeVariant("a.b"), dbus.FieldMember: dbus.MakeVariant("C"),
				dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("s")),
			}, Body: []any{"hello"}})
			send(t, conn, order, reply(call, fakeUnits()))
			_, _ = in.ReadByte()
		})
		got, err := listUnits(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		checkFakeUnits(t, got)
	}
}

// A real message bus with a service that has systemd's name.
func TestListUnitsBus(t *testing.T) {
	t.Parallel()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		testkit.Missing(t, "dbus-daemon is missing: install dbus-daemon")
	}
	rootfs := shortTempDir(t)
	socket := filepath.Join(rootfs, busSocket)
	must(t, os.MkdirAll(filepath.Dir(socket), 0o755))
	config := filepath.Join(rootfs, "bus.conf")
	must(t, os.WriteFile(config, []byte(`<busconfig><listen>unix:path=`+socket+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>`), 0o644))
	cmd := exec.CommandContext(t.Context(), daemon, "--nofork", "--config-file="+config)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	var conn *dbus.Conn
	for range 100 {
		if conn, err = dbus.Connect("unix:path=" + socket); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	must(t, err)
	defer func() { _ = conn.Close() }()
	root := hostfs.New(hostfs.Paths{Rootfs: rootfs}).Rootfs
	if _, err := listUnits(t.Context(), root); err == nil || !strings.Contains(err.Error(), "org.freedesktop.DBus.Error.ServiceUnknown") {
		t.Errorf("without the service: %v", err)
	}
	must(t, conn.Export(fakeManager{}, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"))
	_, err = conn.RequestName("org.freedesktop.systemd1", 0)
	must(t, err)
	got, err := listUnits(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	checkFakeUnits(t, got)
}

type fakeManager struct{}

func (fakeManager) ListUnits() ([]fakeUnit, *dbus.Error) { return fakeUnits(), nil }

func TestListUnitsFails(t *testing.T) {
	t.Parallel()
	if _, err := listUnits(t.Context(), hostfs.New(hostfs.Paths{Rootfs: t.TempDir()}).Rootfs); !errors.Is(err, hostfs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"refused": {func(c net.Conn) {
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, "REJECTED EXTERNAL\r\n")
		}, "refused with"},
		"endless": {func(c net.Conn) {
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = c.Write(bytes.Repeat([]byte("x"), 1<<16))
		}, "authentication"},
		"error": {func(c net.Conn) {
			call, _ := acceptDBus(t, c)
			r := reply(call, "denied")
			r.Type = dbus.TypeError
			r.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.DBus.Error.AccessDenied")
			send(t, c, binary.LittleEndian, r)
		}, "AccessDenied"},
		"signature": {func(c net.Conn) {
			call, _ := acceptDBus(t, c)
			send(t, c, binary.LittleEndian, reply(call, "text"))
		}, `reply with signature "s"`},
		"garbage": {func(c net.Conn) {
			acceptDBus(t, c)
			_, _ = c.Write(bytes.Repeat([]byte{'x'}, 64))
		}, "not a valid D-Bus message"},
		"huge": {func(c net.Conn) {
			acceptDBus(t, c)
			_, _ = c.Write(append([]byte{'l', 2, 0, 1}, bytes.Repeat([]byte{0xff}, 12)...))
		}, "larger than"},
		"closed": {func(c net.Conn) { acceptDBus(t, c) }, "EOF"},
		"silent": {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "timeout"},
	} {
		root := hostWithSocket(t, systemdSocket, c.serve)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := listUnits(ctx, root)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// shortTempDir is a folder whose name leaves room for a socket: 108 bytes.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// hostWithSocket is a host on which serve answers the first connection to a
// socket.
func hostWithSocket(t *testing.T, socket string, serve func(net.Conn)) *hostfs.Tree {
	t.Helper()
	rootfs := shortTempDir(t)
	file := filepath.Join(rootfs, socket)
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	l, err := net.Listen("unix", file)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		serve(conn)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return hostfs.New(hostfs.Paths{Rootfs: rootfs}).Rootfs
}

// acceptDBus is the server's side of the authentication and of one call.
func acceptDBus(t *testing.T, conn net.Conn) (*dbus.Message, *bufio.Reader) {
	in := bufio.NewReader(conn)
	auth, err := in.ReadString('\n')
	if err != nil || auth != fmt.Sprintf("\x00AUTH EXTERNAL %x\r\n", fmt.Sprint(os.Geteuid())) {
		t.Errorf("auth %q, %v", auth, err)
	}
	_, _ = io.WriteString(conn, "OK 1234deadbeef\r\n")
	if begin, err := in.ReadString('\n'); err != nil || begin != "BEGIN\r\n" {
		t.Errorf("begin %q, %v", begin, err)
	}
	call, err := dbus.DecodeMessage(in)
	if err != nil {
		t.Errorf("the call: %v", err)
		return &dbus.Message{}, in
	}
	if err := call.IsValid(); err != nil {
		t.Errorf("the call: %v", err)
	}
	return call, in
}

func reply(call *dbus.Message, body any) *dbus.Message {
	return &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
		dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(body)),
	}, Body: []any{body}}
}

func send(t *testing.T, conn net.Conn, order binary.ByteOrder, m *dbus.Message) {
	var b bytes.Buffer
	m.Flags = dbus.FlagNoReplyExpected
	if err := encodeReply(m, &b, order); err != nil {
		t.Errorf("encode: %v", err)
	}
	_, _ = conn.Write(b.Bytes())
}

// encode gives the message a serial, which must not be 0.
func encodeReply(m *dbus.Message, w *bytes.Buffer, order binary.ByteOrder) error {
	if err := m.EncodeTo(w, order); err != nil {
		return err
	}
	order.PutUint32(w.Bytes()[8:], 99)
	return nil
}

func FuzzReadDBusMessage(f *testing.F) {
	var b bytes.Buffer
	call := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(uint32(1)),
		dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(fakeUnits()[:2])),
	}, Body: []any{fakeUnits()[:2]}}
	if err := encodeReply(call, &b, binary.LittleEndian); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		msg, err := readDBusMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		units, err := decodeUnits(msg.body)
		if err == nil && len(units) > len(b) {
			t.Errorf("%d units from %d bytes", len(units), len(b))
		}
	})
}
