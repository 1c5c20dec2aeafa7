// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

const rounds = testkit.Rounds

// space is a network namespace of the test's own and a thread inside it.
type space struct {
	inode  uint64
	cookie uint64
	tid    int
	work   chan func()
}

// newSpace makes a namespace with lo up. It ends with the test.
func newSpace(t testing.TB) *space {
	t.Helper()
	testkit.RequireBPF(t)
	s := &space{work: make(chan func())}
	ready := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the namespace dies with the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		s.tid = unix.Gettid()
		ready <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(s.work); <-ended })
	s.up(t, "lo")
	s.do(t, func() error {
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/self/task/%d/ns/net", s.tid), &st)
		s.inode = st.Ino
		fd, socketErr := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if socketErr != nil {
			return socketErr
		}
		defer unix.Close(fd)
		// before 5.14 it cannot be asked for: what is restricted by it sees all
		s.cookie, _ = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	return s
}

// do runs f inside the namespace.
func (s *space) do(t testing.TB, f func() error) {
	t.Helper()
	result := make(chan error)
	s.work <- func() { result <- f() }
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// spawn runs f in another thread inside the namespace.
func (s *space) spawn(t testing.TB, group *sync.WaitGroup, f func() error) {
	t.Helper()
	path := fmt.Sprintf("/proc/self/task/%d/ns/net", s.tid)
	group.Go(func() {
		runtime.LockOSThread() // never unlocked
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// up switches a device of the namespace on.
func (s *space) up(t testing.TB, device string) {
	t.Helper()
	s.do(t, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("device %s: %w", device, err)
		}
		return netlink.LinkSetUp(link)
	})
}

// number gives a device of the namespace an address, as 10.0.0.1/24.
func (s *space) number(t testing.TB, device, address string) {
	t.Helper()
	s.do(t, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("device %s: %w", device, err)
		}
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		parsed.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(link, parsed)
	})
}

// mislead has an address behind v0 belong to a device that does not exist.
func (s *space) mislead(t testing.TB, address string) {
	t.Helper()
	s.do(t, func() error {
		link, err := netlink.LinkByName("v0")
		if err != nil {
			return fmt.Errorf("device v0: %w", err)
		}
		return netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(address),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3},
		})
	})
}

// inhabit starts a process that does nothing in the namespace.
func (s *space) inhabit(t testing.TB) {
	t.Helper()
	command := exec.Command("sleep", "1000")
	s.do(t, command.Start)
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
}

// named gives the namespace a name below a root directory and returns that.
func (s *space) named(t testing.TB, name string) string {
	t.Helper()
	root := t.TempDir()
	folder := filepath.Join(root, "run/netns")
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, filepath.Join(folder, "a-plain-file")} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	of := fmt.Sprintf("/proc/self/task/%d/ns/net", s.tid)
	if err := unix.Mount(of, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return root
}

// join connects two namespaces: 10.9.0.1 and fd09::1 here, .2 and ::2 there.
// 10.9.0.3 and fd09::3 are a hole that swallows everything.
func (s *space) join(t testing.TB, other *space) {
	t.Helper()
	s.do(t, func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "v0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "v1", PeerNamespace: netlink.NsPid(other.tid)})
	})
	for _, end := range []struct {
		s      *space
		device string
		number string
	}{{s, "v0", "1"}, {other, "v1", "2"}} {
		end.s.number(t, end.device, "10.9.0."+end.number+"/24")
		end.s.number(t, end.device, "fd09::"+end.number+"/64")
		end.s.up(t, end.device)
	}
	s.mislead(t, "10.9.0.3")
	s.mislead(t, "fd09::3")
}

// only restricts a probe to the namespace.
func (s *space) only() probe.Settings {
	return probe.Settings{Constants: map[string]any{"only_netns": s.inode, "only_netns_cookie": s.cookie}, MaxEntries: map[string]uint32{}}
}

func start(t testing.TB, settings probe.Settings) *probe.Probe {
	t.Helper()
	return startSpec(t, New(), settings)
}

func startSpec(t testing.TB, spec *probe.Spec, settings probe.Settings) *probe.Probe {
	t.Helper()
	host := testkit.Inspect(t)
	p := testkit.StartProbe(t, host, spec, settings)
	exact := len(spec.Parts[1].Rungs) == len(udpRungs()) && host.TracepointParams("sock_send_length") > 0
	if exact && p.Runs("on_connect4") {
		t.Fatal("the approximation is in use, where the kernel has better")
	}
	for _, either := range [][]string{{"fill_sockets"}, {"walk_sockets", "sweep_sockets"}, {"walk_flows", "sweep_flows"}} {
		if !slices.ContainsFunc(either, p.Runs) {
			t.Fatalf("%v: not attached", either)
		}
	}
	return p
}

// ipVersion makes addresses of one IP version.
type ipVersion struct {
	name    string
	domain  int
	address func(last byte, port int) unix.Sockaddr // on lo
	veth    func(last byte, port int) unix.Sockaddr
}

var (
	ipv4 = ipVersion{"v4", unix.AF_INET,
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, last}}
		},
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 9, 0, last}}
		}}
	ipv6 = ipVersion{"v6", unix.AF_INET6,
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: last}}
		},
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: port, Addr: [16]byte{0: 0xfd, 1: 0x09, 15: last}}
		}}
	mapped = ipVersion{"v4-mapped", unix.AF_INET6,
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: last}}
		},
		func(last byte, port int) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 9, 15: last}}
		}}
	versions = []ipVersion{ipv4, ipv6, mapped}
)

func portOf(fd int) (int, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return a.Port, nil
	case *unix.SockaddrInet6:
		return a.Port, nil
	}
	return 0, errors.New("no IP socket")
}

// closeAll closes and forgets.
func closeAll(fds *[]int) {
	for _, fd := range *fds {
		unix.Close(fd)
	}
	*fds = nil
}

// patience is for what the kernel's timers bring about: after a lost SYN a FIN is
// sent again after 3 and after 9 s.
const patience = 30 * time.Second

// protocolCounter is a number of /proc/net/netstat, of the network namespace of
// the thread.
func protocolCounter(protocol, name string) (uint64, error) {
	content, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != protocol+":" {
			continue
		}
		if i := slices.Index(names, name); i >= 0 {
			return strconv.ParseUint(fields[i], 10, 64)
		}
		names = fields
	}
	return 0, fmt.Errorf("no %s %s in netstat", protocol, name)
}

// settle waits until a condition holds, and fails the test if it never does.
func settle(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}
