// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
	"security-exporter/internal/testkit"
)

// inNetns runs f on a thread in a network namespace of its own, whose loopback
// device is up. The thread ends with it.
func inNetns(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	for _, tool := range []string{"ip", "ss"} {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, "%s is missing: install iproute2", tool)
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The listeners of a namespace as ss(8) lists them: IPv4, IPv6, mapped,
// dual-stack, 64 sharers, 400 ports, connections, and a process with a hostile
// name.
func TestPortsOracle(t *testing.T) {
	t.Parallel()
	inNetns(t, func() {
		var open []func()
		defer func() {
			for _, c := range open {
				c()
			}
		}()
		listen := func(network, addr string, options ...func(fd int) error) {
			config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var err error
				return cmpOr(c.Control(func(fd uintptr) {
					for _, o := range options {
						err = cmpOr(err, o(int(fd)))
					}
				}), err)
			}}
			if strings.HasPrefix(network, "udp") {
				c, err := config.ListenPacket(context.Background(), network, addr)
				if noError(t, err) {
					open = append(open, func() { _ = c.Close() })
				}
				return
			}
			l, err := config.Listen(context.Background(), network, addr)
			if noError(t, err) {
				open = append(open, func() { _ = l.Close() })
			}
		}
		reuse := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
		listen("tcp4", "127.0.0.1:1001")
		listen("tcp4", "0.0.0.0:1002")
		listen("tcp6", "[::1]:1001")
		listen("tcp6", "[::]:1003")
		listen("tcp", ":1004")
		listen("udp4", "127.0.0.2:1001")
		listen("udp6", "[::]:1005")
		listen("udp", ":1006")
		for range 64 {
			listen("tcp4", "127.0.0.1:2000", reuse)
		}
		for port := range 400 {
			listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 3000+port))
		}
		open = append(open, mappedListener(t, 1011))
		client, err := net.Dial("tcp", "127.0.0.1:1001")
		if noError(t, err) {
			open = append(open, func() { _ = client.Close() })
		}
		connected, err := net.Dial("udp", "127.0.0.2:1001")
		if noError(t, err) {
			open = append(open, func() { _ = connected.Close() })
		}
		stop := hostileListener(t)
		defer stop()

		batch := metric.NewBatch(portsMaxSeries)
		spec := portsCollector()
		noError(t, spec.Collect(t.Context(), fixtureInput("/", Settings{}), batch))
		var got, sharers, total []string
		for _, f := range gather(t, batchCollector{spec.Metrics, batch}) {
			for _, m := range f.GetMetric() {
				l := make(map[string]string)
				for _, p := range m.GetLabel() {
					l[p.GetName()] = p.GetValue()
				}
				switch f.GetName() {
				case "linux_security_ports_use_info":
					got = append(got, strings.Join([]string{l["protocol"], l["local_ip"], l["local_port"], l["process"]}, " "))
				case "linux_security_listening_shared_sockets":
					sharers = append(sharers, fmt.Sprint(l["local_port"], " ", m.GetGauge().GetValue()))
				case "linux_security_listening_sockets":
					if v := m.GetGauge().GetValue(); v > 0 {
						total = append(total, fmt.Sprint(l["protocol"], " ", l["scope"], " ", v))
					}
				}
			}
		}
		slices.Sort(got)
		if want := ssListeners(t); !slices.Equal(got, want) {
			t.Errorf("got:\n%s\nss says:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if len(got) != 400+1+7+1+2 {
			t.Errorf("%d listeners", len(got))
		}
		if !slices.Equal(sharers, []string{"2000 64"}) {
			t.Errorf("sharers %q", sharers)
		}
		if want := []string{"tcp any 1", "tcp loopback 466", "tcp6 any 2", "tcp6 loopback 2", "udp loopback 1", "udp6 any 2"}; !slices.Equal(total, want) {
			t.Errorf("%q, want %q", total, want)
		}
	})
}

func cmpOr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func noError(t testing.TB, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// mappedListener listens on ::ffff:127.0.0.1, which package net would turn
// into an IPv4 socket.
func mappedListener(t *testing.T, port int) func() {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	noError(t, err)
	noError(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	noError(t, unix.Bind(fd, &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}))
	noError(t, unix.Listen(fd, 1))
	return func() { _ = unix.Close(fd) }
}

// hostileListener starts a process with an unprintable name.
func hostileListener(t testing.TB) func() {
	t.Helper()
	cmd := exec.Command("python3", "-c", `
import socket, sys
open("/proc/self/comm", "wb").write(b"e\xffil\n{}")
s = socket.socket(); s.bind(("127.0.0.1", 1007)); s.listen()
print("ready", flush=True); sys.stdin.read()`)
	in, err := cmd.StdinPipe()
	noError(t, err)
	out, err := cmd.StdoutPipe()
	noError(t, err)
	if !noError(t, cmd.Start()) {
		return func() {}
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Errorf("python3: %v", err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// ssListeners are the lines of ss, as the collector labels them.
func ssListeners(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ss", "-H", "-lntup").Output()
	noError(t, err)
	users := regexp.MustCompile(`users:\(\("(.*?)",pid=`)
	var list []string
	for line := range strings.Lines(strings.ReplaceAll(string(out), "\n{}", "\x01{}")) {
		f := strings.Fields(line)
		local := f[4]
		i := strings.LastIndexByte(local, ':')
		ip, port, protocol := local[:i], local[i+1:], f[0]
		switch {
		case ip == "*" || ip == "[::]":
			ip, protocol = "::", protocol+"6"
		case ip == "0.0.0.0":
			ip = "*"
		case ip[0] == '[':
			ip, protocol = strings.Trim(ip, "[]"), protocol+"6"
		}
		process := ""
		if m := users.FindStringSubmatch(line); m != nil {
			process = metric.Clean(m[1])
		}
		list = append(list, strings.Join([]string{protocol, ip, port, process}, " "))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A process that ends between the dump and the pass over the descriptors.
func TestPortsVanishing(t *testing.T) {
	t.Parallel()
	inNetns(t, func() {
		stop := hostileListener(t)
		got := string(exposition(t, portsWith(func(states uint32) ([]socket, error) {
			list, err := dumpSockets(states)
			stop()
			return list, err
		}), fixtureInput("/", Settings{})))
		if !strings.Contains(got, `local_port="1007",process="unknown"`) || strings.HasPrefix(got, "#   ") {
			t.Error(got)
		}
	})
}

// An ordinary user sees the sockets, without their processes, and the error
// says what is missing. The collector runs on a thread that gave up its ids.
func TestPortsUnprivileged(t *testing.T) {
	t.Parallel()
	inNetns(t, func() {
		defer hostileListener(t)()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			t.Error(e)
			return
		}
		got := string(exposition(t, portsCollector(), fixtureInput("/", Settings{})))
		if !strings.Contains(got, `local_port="1007",process="unknown"`) || !strings.HasPrefix(got, "# partial: some sockets have no process") {
			t.Error(got)
		}
	})
}

// BenchmarkPorts is one run on 1,000 processes with 10,000 descriptors more
// and 400 listeners in 400 of them; cpu-ms is the CPU time of a run.
func BenchmarkPorts(b *testing.B) {
	inNetns(b, func() {
		cmd := exec.Command("python3", "-c", `
import os, socket, sys, signal
null = os.open("/dev/null", os.O_RDONLY)
for i in range(6): os.dup(null)
kids = []
for i in range(1000):
    s = None
    if i >= 600:
        s = socket.socket(); s.bind(("127.0.0.1", 2000 + i)); s.listen()
    p = os.fork()
    if p == 0:
        signal.pause(); os._exit(0)
    kids.append(p)
    if s: s.close()
print("ready", flush=True); sys.stdin.read()
for p in kids: os.kill(p, 9)
for p in kids: os.waitpid(p, 0)`)
		in, err := cmd.StdinPipe()
		noError(b, err)
		out, err := cmd.StdoutPipe()
		noError(b, err)
		noError(b, cmd.Start())
		_, err = out.Read(make([]byte, 8))
		noError(b, err)
		defer func() {
			_ = in.Close()
			_ = cmd.Wait()
		}()
		asked, answered := make(chan uint32), make(chan []socket)
		done := make(chan struct{})
		// Only the dump needs the namespace: the run itself is not tied to a
		// thread, as in the exporter.
		go func() {
			defer close(done)
			measurePorts(b, func(states uint32) ([]socket, error) {
				asked <- states
				return <-answered, nil
			})
		}()
		for {
			select {
			case states := <-asked:
				list, err := dumpSockets(states)
				noError(b, err)
				answered <- list
			case <-done:
				return
			}
		}
	})
}

func measurePorts(b *testing.B, dump func(uint32) ([]socket, error)) {
	spec, input := portsWith(dump), fixtureInput("/", Settings{})
	run := func() {
		batch := metric.NewBatch(portsMaxSeries)
		noError(b, spec.Collect(b.Context(), input, batch))
		if batch.Len() < 400 {
			b.Errorf("%d series", batch.Len())
		}
	}
	first := cpuTime()
	run()
	b.Logf("first run: %.0f ms of CPU", (cpuTime()-first)*1e3)
	start := cpuTime()
	for b.Loop() {
		run()
	}
	b.ReportMetric((cpuTime()-start)*1e3/float64(b.N), "cpu-ms/op")
}

// cpuTime is the CPU time this process has used, in seconds.
func cpuTime() float64 {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
