// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
)

// pair is a server socket, bound, and a client socket of each round.
type pair struct {
	version ipVersion
	server  int
	at      unix.Sockaddr
	client  int
}

func udpSocket(version ipVersion) (int, error) {
	fd, err := unix.Socket(version.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	hang := unix.Timeval{Sec: 5}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &hang)
}

func newPair(version ipVersion) (*pair, error) {
	p := &pair{version: version, client: -1}
	var err error
	if p.server, err = udpSocket(version); err != nil {
		return nil, err
	}
	if err := unix.Bind(p.server, version.address(1, 0)); err != nil {
		return nil, err
	}
	port, err := portOf(p.server)
	p.at = version.address(1, port)
	return p, err
}

// send sends a datagram of one byte from the client, to nobody in particular
// if the address is nil.
func (p *pair) send(to unix.Sockaddr) error {
	if to == nil {
		_, err := unix.Write(p.client, []byte("x"))
		return err
	}
	return unix.Sendto(p.client, []byte("x"), 0, to)
}

// take reads one datagram and asks for its address.
func take(fd, flags int) (unix.Sockaddr, error) {
	_, from, err := unix.Recvfrom(fd, make([]byte, 16), flags)
	return from, err
}

type udpCase struct {
	name    string
	round   func(p *pair) error
	in, out int64
}

var udpCases = []udpCase{
	{"unconnected, three datagrams", func(p *pair) error {
		var errs []error
		for range 3 {
			errs = append(errs, p.send(p.at))
		}
		for range 3 {
			_, err := take(p.server, 0)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, 1, 1},
	{"answered", func(p *pair) error {
		if err := p.send(p.at); err != nil {
			return err
		}
		from, err := take(p.server, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(p.server, []byte("answer"), 0, from)
		_, rerr := take(p.client, 0)
		return errors.Join(err, rerr)
	}, 1, 1},
	{"connected, answered", func(p *pair) error {
		if err := errors.Join(unix.Connect(p.client, p.at), p.send(nil)); err != nil {
			return err
		}
		from, err := take(p.server, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(p.server, []byte("answer"), 0, from)
		_, rerr := unix.Read(p.client, make([]byte, 16))
		return errors.Join(err, rerr)
	}, 1, 1},
	{"connected, with recvfrom", func(p *pair) error {
		if err := errors.Join(unix.Connect(p.client, p.at), p.send(nil)); err != nil {
			return err
		}
		from, err := take(p.server, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(p.server, []byte("answer"), 0, from)
		_, rerr := take(p.client, 0)
		return errors.Join(err, rerr)
	}, 1, 1},
	{"received first on a connected socket", func(p *pair) error {
		if err := errors.Join(unix.Bind(p.client, p.version.address(1, 0)), unix.Connect(p.client, p.at)); err != nil {
			return err
		}
		to, err := unix.Getsockname(p.client)
		if err != nil {
			return err
		}
		err = unix.Sendto(p.server, []byte("x"), 0, to)
		_, rerr := unix.Read(p.client, make([]byte, 16))
		return errors.Join(err, rerr, p.send(nil), drain(p.server))
	}, 1, 1},
	{"no bytes", func(p *pair) error {
		err := unix.Sendto(p.client, nil, 0, p.at)
		_, rerr := take(p.server, 0)
		return errors.Join(err, rerr)
	}, 1, 1},
	{"no bytes, connected", func(p *pair) error {
		if err := errors.Join(unix.Connect(p.client, p.at), send0(p.client)); err != nil {
			return err
		}
		_, rerr := take(p.server, 0)
		return rerr
	}, 1, 1},
	{"peeked, then read", func(p *pair) error {
		err := p.send(p.at)
		_, perr := take(p.server, unix.MSG_PEEK)
		_, rerr := take(p.server, 0)
		return errors.Join(err, perr, rerr)
	}, 1, 1},
	{"sendmmsg to two addresses", func(p *pair) error {
		first, second := p.version.address(1, 9), p.version.address(1, 10)
		return sendmmsg(p.client, first, second, first)
	}, 0, 2},
	{"connected, but sent elsewhere", func(p *pair) error {
		err := errors.Join(unix.Connect(p.client, p.version.address(1, 9)), p.send(p.at), p.send(p.at))
		_, rerr := take(p.server, 0)
		return errors.Join(err, rerr)
	}, 1, 1},
	{"received before the connect", func(p *pair) error {
		if err := unix.Bind(p.client, p.version.address(1, 0)); err != nil {
			return err
		}
		to, err := unix.Getsockname(p.client)
		if err != nil {
			return err
		}
		if err := unix.Sendto(p.server, []byte("x"), 0, to); err != nil {
			return err
		}
		if err := unix.Connect(p.client, p.version.address(1, 9)); err != nil {
			return err
		}
		from, err := take(p.client, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Connect(p.client, from), unix.Sendto(p.client, []byte("y"), 0, from), drain(p.server))
	}, 1, 1},
	{"shut for reading", func(p *pair) error {
		err := errors.Join(unix.Connect(p.client, p.at), unix.Shutdown(p.client, unix.SHUT_RD))
		n, rerr := unix.Read(p.client, make([]byte, 16))
		if n != 0 {
			return errors.New("read something")
		}
		return errors.Join(err, rerr)
	}, 0, 0},
	{"read from the error queue", func(p *pair) error {
		level, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if p.version.name == "v6" {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		err := errors.Join(unix.SetsockoptInt(p.client, level, option, 1),
			unix.Connect(p.client, p.version.address(1, 1)), p.send(nil),
			unix.Connect(p.client, p.at))
		_, _, _, _, rerr := unix.Recvmsg(p.client, make([]byte, 16), make([]byte, 256), unix.MSG_ERRQUEUE)
		return errors.Join(err, rerr)
	}, 0, 1},
	{"connected without a datagram", func(p *pair) error {
		return unix.Connect(p.client, p.at)
	}, 0, 0},
	{"no route", func(p *pair) error {
		to := p.version.veth(7, 9)
		if err := p.send(to); err == nil {
			return errors.New("there is a route")
		}
		if err := p.send(p.version.address(1, 0)); err == nil {
			return errors.New("sent to port 0")
		}
		return nil
	}, 0, 0},
	{"refused", func(p *pair) error {
		if err := errors.Join(unix.Connect(p.client, p.version.address(1, 1)), p.send(nil), hear(p.client)); err != nil {
			return err
		}
		if err := p.send(nil); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("not refused: %v", err)
		}
		return nil
	}, 0, 1},
	{"unix sockets", func(p *pair) error {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			ends, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
			if err != nil {
				return err
			}
			_, werr := unix.Write(ends[0], []byte("x"))
			_, rerr := unix.Read(ends[1], make([]byte, 4))
			if err := errors.Join(werr, rerr, unix.Close(ends[0]), unix.Close(ends[1])); err != nil {
				return err
			}
		}
		return nil
	}, 0, 0},
}

func send0(fd int) error {
	_, err := unix.SendmsgN(fd, nil, nil, nil, 0)
	return err
}

// drain takes what came without asking for an address: on a socket that is
// not connected the last rung does not see it.
func drain(fd int) error {
	_, err := unix.Read(fd, make([]byte, 16))
	return err
}

func runUDP(t *testing.T, s *space, p *probe.Probe, version ipVersion, c udpCase) {
	w := watchAll(t, p)
	s.do(t, func() error {
		for range rounds {
			pair, err := newPair(version)
			if err != nil {
				return err
			}
			if pair.client, err = udpSocket(version); err != nil {
				return err
			}
			if err := errors.Join(c.round(pair), unix.Close(pair.client), unix.Close(pair.server)); err != nil {
				return err
			}
		}
		return nil
	})
	w.Expect(t, map[string]map[int]int64{"connect_total": {udpIn: c.in * rounds, udpOut: c.out * rounds}})
}

func TestUDP(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	for _, version := range versions {
		for _, c := range udpCases {
			t.Run(c.name+" "+version.name, func(t *testing.T) { runUDP(t, s, p, version, c) })
		}
	}
	if n := countKeys(p.Map("pending")); n != 0 {
		t.Errorf("%d sends still pending", n)
	}
}

// UDP-Lite, raw sockets and ping are no UDP.
func TestUDPOthers(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	w := watchAll(t, p)
	sent := 0
	s.do(t, func() error {
		for _, kind := range []struct{ kind, protocol int }{
			{unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE}, {unix.SOCK_RAW, unix.IPPROTO_ICMP}, {unix.SOCK_RAW, unix.IPPROTO_UDP},
		} {
			fd, err := unix.Socket(unix.AF_INET, kind.kind, kind.protocol)
			if errors.Is(err, unix.EPROTONOSUPPORT) {
				continue // UDP-Lite may be left out
			}
			if err != nil {
				return err
			}
			if err := unix.Sendto(fd, make([]byte, 16), 0, ipv4.address(1, 9)); err != nil {
				return fmt.Errorf("protocol %d: %w", kind.protocol, err)
			}
			sent++
			unix.Close(fd)
		}
		return nil
	})
	if sent < 2 {
		t.Errorf("sent only %d", sent)
	}
	w.Expect(t, nil)
}

// The last rung does not see a receive that asks for no address on a socket
// that is not connected.
func TestUDPNotSeen(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	if !p.Runs("on_recvmsg4") {
		t.Skip("a better rung is in use, which sees it")
	}
	runUDP(t, s, p, ipv4, udpCase{"no address asked for", func(p *pair) error {
		return errors.Join(p.send(p.at), drain(p.server))
	}, 0, 1})
}

// The approximation counts a connect() and cannot tell that a send failed.
func TestUDPApproximation(t *testing.T) {
	s := newSpace(t)
	spec := New()
	rungs := udpRungs()
	spec.Parts[1].Rungs = rungs[len(rungs)-1:]
	p := startSpec(t, spec, s.only())
	for _, version := range versions {
		for _, c := range []udpCase{
			{"connected", func(p *pair) error { return unix.Connect(p.client, p.at) }, 0, 1},
			{"answered", udpCases[1].round, 1, 1},
			{"connected, with recvfrom", udpCases[3].round, 1, 1},
		} {
			t.Run(c.name+" "+version.name, func(t *testing.T) { runUDP(t, s, p, version, c) })
		}
	}
}

// sockets sends one datagram from each of n sockets.
func sockets(n int, to unix.Sockaddr) error {
	for range n {
		fd, err := udpSocket(ipv4)
		if err != nil {
			return err
		}
		err = unix.Sendto(fd, []byte("x"), 0, to)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func TestUDPTableFull(t *testing.T) {
	const n, room = 1024, 256
	s := newSpace(t)
	settings := s.only()
	settings.MaxEntries["flows"] = room
	p := start(t, settings)
	w := watchAll(t, p)
	s.do(t, func() error { return sockets(n, ipv4.address(1, 9)) })
	w.Expect(t, map[string]map[int]int64{"connect_total": {udpOut: n}})
	if got := swept(t, p); got.entries == 0 || got.entries > room || got.entries+int(got.evicted) != n {
		t.Errorf("%+v: entries and evictions are not %d", got, n)
	}
	if got := activeAfter(t, p, 0); got != [2]int64{0, n} {
		t.Errorf("active: %v, want %d out", got, n)
	}
}

// No room to remember an address: the send is counted at once.
func TestUDPPendingFull(t *testing.T) {
	s := newSpace(t)
	settings := s.only()
	settings.MaxEntries["pending"] = 1
	p := start(t, settings)
	if !p.Runs("on_sendmsg4") {
		t.Skip("a better rung is in use, which remembers nothing")
	}
	if err := p.Map("pending").Put(uint32(1<<31), make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	// Spare elements of the CPUs let a few more in at the same time, but none
	// of them stays.
	w := watchAll(t, p)
	s.do(t, func() error { return sockets(rounds, ipv4.address(1, 9)) })
	w.Expect(t, map[string]map[int]int64{
		"connect_total": {udpOut: rounds}, "map_evictions": {int(abi.TablePending): rounds},
	})
}

// age makes every flow of the table older, though not older than the machine.
func age(t *testing.T, p *probe.Probe, by time.Duration) {
	t.Helper()
	time.Sleep(max(0, by+time.Second-monotonic()))
	table := p.Map("flows")
	var keys, values [][]byte
	var key, value []byte
	for entries := table.Iterate(); entries.Next(&key, &value); {
		keys = append(keys, append([]byte(nil), key...))
		values = append(values, append([]byte(nil), value...))
	}
	for i, key := range keys {
		seen := binary.NativeEndian.Uint64(values[i])
		binary.NativeEndian.PutUint64(values[i], seen-min(seen, uint64(by)))
		if err := table.Update(key, values[i], ebpf.UpdateExist); err != nil {
			t.Fatal(err)
		}
	}
}

// swept is what a sweep by itself finds.
func swept(t *testing.T, p *probe.Probe) sweepReading {
	t.Helper()
	var s sweeper
	if err := s.sweep(p); err != nil {
		t.Fatal(err)
	}
	return s.reading()
}

// activeAfter are the flows that will be active in a while.
func activeAfter(t *testing.T, p *probe.Probe, while time.Duration) [2]int64 {
	t.Helper()
	got, err := activeFlows(p, monotonic()+while)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A flow is over after 60 s, and then counts again, by who sends first.
func TestUDPFlowEnds(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	w := watchAll(t, p)
	var both *pair
	var from unix.Sockaddr
	s.do(t, func() (err error) {
		if both, err = newPair(ipv4); err != nil {
			return err
		}
		both.client, err = udpSocket(ipv4)
		if err == nil {
			err = both.send(both.at)
		}
		if err == nil {
			from, err = take(both.server, 0)
		}
		return err
	})
	defer unix.Close(both.server)
	defer unix.Close(both.client)
	w.Expect(t, map[string]map[int]int64{"connect_total": {udpIn: 1, udpOut: 1}})
	if got := activeAfter(t, p, 0); got != [2]int64{1, 1} {
		t.Errorf("at first: %v", got)
	}
	if got := activeAfter(t, p, 59*time.Second); got != [2]int64{1, 1} {
		t.Errorf("after 59 s: %v", got)
	}
	for _, later := range []time.Duration{61, 100, 137, 150, 200, 1000} {
		if got := activeAfter(t, p, later*time.Second); got != [2]int64{} {
			t.Errorf("after %d s: %v", later, got)
		}
	}
	age(t, p, 61*time.Second)
	if got := swept(t, p); got.entries != 2 {
		t.Errorf("after 61 s: %+v", got)
	}
	if err := unix.Sendto(both.server, []byte("x"), 0, from); err != nil {
		t.Fatal(err)
	}
	if _, err := take(both.client, 0); err != nil {
		t.Fatal(err)
	}
	w.Expect(t, map[string]map[int]int64{"connect_total": {udpIn: 2, udpOut: 2}})
	// The ring has not aged: it has them as they were, too.
	if got := activeAfter(t, p, 0); got != [2]int64{2, 2} {
		t.Errorf("when they came back: %v", got)
	}
	age(t, p, 121*time.Second)
	if got := swept(t, p); got != (sweepReading{}) {
		t.Errorf("after 121 s: %+v", got)
	}
	if n := countKeys(p.Map("flows")); n != 0 {
		t.Errorf("%d flows left", n)
	}
}

// A flow that goes on is one, whoever sends and on whatever CPU.
func TestUDPFlowGoesOn(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	var fd int
	s.do(t, func() (err error) { fd, err = udpSocket(ipv4); return err })
	defer unix.Close(fd)
	var threads sync.WaitGroup
	for range 8 {
		threads.Go(func() {
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
				for port := 9; port < 12; port++ {
					if err := unix.Sendto(fd, []byte("x"), 0, ipv4.address(1, port)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	threads.Wait()
	if got := activeAfter(t, p, 0); got != [2]int64{0, 3} {
		t.Errorf("active: %v, want 3 out", got)
	}
	if got := activeAfter(t, p, 58*time.Second); got != [2]int64{0, 3} {
		t.Errorf("active after 58 s: %v, want 3 out", got)
	}
}

// Eight threads that begin the same flow at once begin it once.
func TestUDPRace(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	w := watchAll(t, p)
	for range rounds / 10 {
		var fd int
		s.do(t, func() (err error) { fd, err = udpSocket(ipv4); return err })
		for range 2 {
			var threads sync.WaitGroup
			for range 8 {
				threads.Go(func() {
					for range 50 {
						if err := unix.Sendto(fd, []byte("x"), 0, ipv4.address(1, 9)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			threads.Wait()
			age(t, p, 61*time.Second)
		}
		unix.Close(fd)
	}
	w.Expect(t, map[string]map[int]int64{"connect_total": {udpOut: rounds / 10 * 2}})
}

// Sums and gauges as a scrape sees them.
func TestCollect(t *testing.T) {
	s := newSpace(t)
	p := start(t, s.only())
	s.do(t, func() error { return sockets(3, ipv4.address(1, 9)) })
	var conns *tcp
	s.do(t, func() (err error) {
		if conns, err = listen(ipv4, ipv4.address(1, 0), 8); err == nil {
			err = conns.open()
		}
		return err
	})
	defer conns.close()
	got := rows(t, p)
	want := map[string]float64{"in tcp": 1, "out tcp": 1, "in udp": 0, "out udp": 3}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := p.Spec().Periodic(p); err != nil {
		t.Fatal(err)
	}
	tables := p.Spec().Tables(p)
	room := abi.SocketsWithoutSets
	if p.Host().Slots {
		room = abi.SocketSets*abi.SocketWays + abi.SocketsBesideSets
	}
	if fmt.Sprint(tables) != fmt.Sprintf("[{sockets 2 %d 0} {flows 3 16384 0} {pending 0 2048 0}]", room) {
		t.Errorf("tables: %v", tables)
	}
}

// Scrapes, by the number of flows.
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{0, 1000, 32000} {
		b.Run(fmt.Sprint(n, " flows"), func(b *testing.B) {
			s := newSpace(b)
			p := start(b, s.only())
			s.do(b, func() error { return sockets(n, ipv4.address(1, 9)) })
			b.ReportAllocs()
			for b.Loop() {
				if _, err := activeFlows(p, monotonic()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
