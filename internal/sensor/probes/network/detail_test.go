// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// events reads what the ring holds, as it is and decoded.
func events(t *testing.T, p *probe.Probe) ([]abi.Event, []event.Event) {
	t.Helper()
	reader, err := ringbuf.NewReader(p.Map("events"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	reader.SetDeadline(time.Now())
	var out []abi.Event
	var decoded []event.Event
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, decoded
		}
		if err != nil {
			t.Fatal(err)
		}
		var e abi.Event
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
		var d event.Event
		if err := d.Decode(record.RawSample); err != nil {
			t.Fatal(err)
		}
		decoded = append(decoded, d)
	}
}

func loginUID(t *testing.T) uint32 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return event.NoID // no CONFIG_AUDIT
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id)
}

// seen is the part of an event that these tests compare.
type seen struct {
	kind, what, how uint8
	port            uint16
	tgid            uint32
	comm            string
}

func summary(e abi.Event) seen {
	name, _, _ := bytes.Cut(bytesOf(e.Comm[:]), []byte{0})
	return seen{e.Kind, e.What, e.How, e.Port, e.Tgid, string(name)}
}

func bytesOf[T ~uint8 | ~int8](in []T) []byte {
	out := make([]byte, len(in))
	for i, b := range in {
		out[i] = byte(b)
	}
	return out
}

// The one who connects is named; the one who is connected to is not guessed.
func TestDetail(t *testing.T) {
	for _, version := range versions {
		t.Run(version.name, func(t *testing.T) { testDetail(t, version, func(*probe.Probe) {}) })
	}
	// those whose slot is taken stand beside the slots
	t.Run("slots taken", func(t *testing.T) {
		testDetail(t, ipv4, func(p *probe.Probe) {
			slots := p.Map("caller_slots")
			slot := make([]byte, slots.ValueSize())
			binary.NativeEndian.PutUint64(slot, occupied)
			for index := range slots.MaxEntries() {
				if err := slots.Put(index, slot); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

func testDetail(t *testing.T, version ipVersion, prepare func(*probe.Probe)) {
	t.Helper()
	s := newSpace(t)
	settings := s.only()
	settings.Constants["stream"], settings.Constants["detailed"] = true, true
	p := start(t, settings)
	prepare(p)
	self := uint32(os.Getpid())
	var comm [16]byte
	var serverPort, clientPort, udpPort int
	s.do(t, func() error {
		if err := unix.Prctl(unix.PR_GET_NAME, uintptrOf(&comm), 0, 0, 0); err != nil {
			return err
		}
		conns, err := listen(version, version.address(1, 0), 8)
		if err != nil {
			return err
		}
		defer conns.close()
		if err := conns.open(); err != nil {
			return err
		}
		serverPort, _ = portOf(conns.listener)
		clientPort, _ = portOf(conns.clients[0])
		if err := abort(conns.servers); err != nil {
			return err
		}
		closeAll(&conns.servers)
		if err := hear(conns.clients...); err != nil {
			return err
		}
		closeAll(&conns.clients)
		if err := tcpCases[11].round(conns); err != nil { // refused
			return err
		}
		both, err := newPair(version)
		if err != nil {
			return err
		}
		defer unix.Close(both.server)
		if both.client, err = udpSocket(version); err != nil {
			return err
		}
		defer unix.Close(both.client)
		udpPort, _ = portOf(both.server)
		if err := both.send(both.at); err != nil {
			return err
		}
		_, err = take(both.server, 0)
		return err
	})
	name, _, _ := bytes.Cut(comm[:], []byte{0})
	got, decoded := events(t, p)
	connect, failed := uint8(abi.EventConnect), uint8(abi.EventConnectError)
	want := []seen{
		// On loopback the client is established first.
		{connect, 1, 0, uint16(serverPort), self, string(name)},
		{connect, 0, 0, uint16(clientPort), 0, ""},
		{failed, uint8(reset), 0, uint16(serverPort), 0, ""},
		{failed, uint8(refused), 0, 1, self, string(name)},
		{connect, 1, 1, uint16(udpPort), self, string(name)},
		{connect, 0, 1, 0, self, string(name)},
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d: %+v", len(got), len(want), got)
	}
	for i, e := range got {
		sum := summary(e)
		if want[i].port == 0 {
			sum.port = 0 // the client's, chosen by the kernel
		}
		if sum != want[i] {
			t.Errorf("event %d: %+v, want %+v", i, sum, want[i])
		}
		if e.CgroupId == 0 {
			t.Errorf("event %d: no cgroup", i)
		}
		if e.Uid != uint32(os.Getuid()) {
			t.Errorf("event %d: uid %d", i, e.Uid)
		}
		loopback := [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
		if version.name == "v6" {
			loopback = [16]byte{15: 1}
		}
		if [16]byte(bytesOf(e.Address[:])) != loopback {
			t.Errorf("event %d: address %v", i, e.Address)
		}
	}
	image, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range decoded {
		known := want[i].tgid != 0
		if e.Class != event.NoClass || e.Weight != 1 || e.Serious { // no process probe, so no class
			t.Errorf("event %d: class %d, weight %d, serious %t", i, e.Class, e.Weight, e.Serious)
		}
		if known != (e.Parent == uint32(os.Getppid())) || known != (e.LoginUID == loginUID(t)) && loginUID(t) != event.NoID {
			t.Errorf("event %d: parent %d, loginuid %d", i, e.Parent, e.LoginUID)
		}
		if udp := e.Transport == uint8(abi.TransportUDP); udp != (string(e.Executable) == image) {
			t.Errorf("event %d: executable %q", i, e.Executable)
		}
		if !e.Peer.Addr().IsLoopback() || e.Peer.Addr().Is4In6() || e.Peer.Addr().Is4() != (version.name != "v6") || e.Peer.Port() == 0 {
			t.Errorf("event %d: peer %s", i, e.Peer)
		}
	}
	if n := countKeys(p.Map("callers")); n != 0 {
		t.Errorf("%d callers are kept", n)
	}
	var index uint32
	var slot []byte
	for slots := p.Map("caller_slots").Iterate(); slots.Next(&index, &slot); {
		if key := binary.NativeEndian.Uint64(slot); key != 0 && key != occupied {
			t.Errorf("the caller of %#x is kept", key)
		}
	}
}

// Every program passes the verifier, with and without detail. A host that
// refuses some kinds of programs (EPERM, behind the verifier) or lacks kprobes
// cannot tell for those.
func TestPrograms(t *testing.T) {
	if testkit.InMachine() {
		t.Skip("needs a host that does not attach them all, as test/kernels does in a machine")
	}
	newSpace(t)
	host := testkit.Inspect(t)
	if !host.HasHelper("check_mtu") {
		t.Skip("needs Linux 5.12: before, only the loader makes the programs fit")
	}
	for _, detailed := range []bool{false, true} {
		object, err := loadBpf()
		if err != nil {
			t.Fatal(err)
		}
		for name, program := range object.Programs {
			one := object.Copy()
			one.Programs = map[string]*ebpf.ProgramSpec{name: program.Copy()}
			for _, constant := range []string{"stream", "detailed"} {
				if err := one.Variables[constant].Set(detailed); err != nil {
					t.Fatal(err)
				}
			}
			collection, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{
				Programs: ebpf.ProgramOptions{KernelTypes: host.BTF},
			})
			var verifier *ebpf.VerifierError
			switch {
			case err == nil:
				collection.Close()
			case errors.As(err, &verifier) && len(verifier.Log) > 0 && !errors.Is(err, unix.EPERM):
				t.Errorf("%s, detailed %t: %v", name, detailed, err)
			default:
				t.Logf("%s: not tried here: %v", name, err)
			}
		}
	}
}
