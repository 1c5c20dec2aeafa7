// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixtureSockets are the sockets of every fixture; the cases differ in /proc.
func fixtureSockets(uint32) ([]socket, error) {
	addr := netip.MustParseAddr
	return []socket{
		{protocol: "tcp", state: stateListen, addr: addr("0.0.0.0"), port: 22, inode: 1001},
		{protocol: "tcp6", state: stateListen, addr: addr("::"), port: 22, inode: 1002, v6only: true},
		{protocol: "tcp6", state: stateListen, addr: addr("::"), port: 80, inode: 1003},
		{protocol: "tcp6", state: stateListen, addr: addr("::1"), port: 5432, inode: 1004},
		{protocol: "tcp6", state: stateListen, addr: addr("::ffff:127.0.0.1"), port: 5432, inode: 1005},
		{protocol: "tcp", state: stateListen, addr: addr("10.1.2.3"), port: 8080, inode: 1006},
		{protocol: "tcp", state: stateListen, addr: addr("10.1.2.3"), port: 8080, inode: 1007},
		{protocol: "tcp", state: stateListen, addr: addr("10.1.2.3"), port: 8080, inode: 1008},
		{protocol: "tcp", state: stateListen, addr: addr("203.0.113.9"), port: 9, inode: 0},
		{protocol: "tcp", state: stateEstablished, addr: addr("127.0.0.1"), port: 40000, inode: 1009},
		{protocol: "udp", state: stateClose, addr: addr("127.0.0.53"), port: 53, inode: 1010},
		{protocol: "udp6", state: stateClose, addr: addr("fe80::1"), port: 546, inode: 1011, iface: 2},
	}, nil
}

func TestPorts(t *testing.T) {
	t.Parallel()
	golden(t, func() Spec { return portsWith(fixtureSockets) }, prepared(func(t *testing.T, name, rootfs string) {
		if name != "hostile" {
			return
		}
		// Bytes that a repository would rather not hold.
		stat := filepath.Join(rootfs, "proc/10/stat")
		text, err := os.ReadFile(stat)
		must(t, err)
		evil := "a\xff\xfe\"\\\nb\x1b[31m" + strings.Repeat("é", 200)
		must(t, os.WriteFile(stat, []byte(strings.Replace(string(text), "placeholder", evil, 1)), 0o644))
		must(t, os.Remove(filepath.Join(rootfs, "proc/10/exe")))
		must(t, os.Symlink("/no such/\xc3(\n"+strings.Repeat("x", 300), filepath.Join(rootfs, "proc/10/exe")))
	}))
}

func TestPortsStates(t *testing.T) {
	t.Parallel()
	in := fixtureInput("testdata/ports/processes/rootfs", Settings{PortStates: []string{"ESTABLISHED", "TIME_WAIT"}})
	var asked uint32
	got := string(exposition(t, portsWith(func(states uint32) ([]socket, error) {
		asked = states
		return fixtureSockets(states)
	}), in))
	if asked != 1<<stateEstablished|1<<6|1<<stateListen {
		t.Errorf("asked for states %b", asked)
	}
	if strings.Count(got, "ports_use_info{") != 1 || !strings.Contains(got, `local_port="40000"`) || !strings.Contains(got, `state="ESTABLISHED"`) {
		t.Errorf("%s", got)
	}
	in.Settings.PortStates = []string{"listen"}
	if got := string(exposition(t, portsWith(fixtureSockets), in)); !strings.Contains(got, `# error: port state "listen" does not exist`) {
		t.Error(got)
	}
}

func TestParseSocketLink(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]uint32{
		"socket:[12345]": 12345, "socket:[4294967295]": 4294967295, "socket:[4294967296]": 0, "socket:[]": 0,
		"socket:[1": 0, "/socket:[1]": 0, "socket:[-1]": 0, "pipe:[1]": 0, "": 0,
	} {
		if got, ok := parseSocketLink([]byte(in)); got != want && ok || ok != (want != 0) {
			t.Errorf("%q: %d, %v", in, got, ok)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	b := make([]byte, diagMessageSize+8)
	b[0], b[1] = 10, stateListen
	binary.NativeEndian.PutUint16(b[diagMessageSize:], 5)
	binary.NativeEndian.PutUint16(b[diagMessageSize+2:], diagV6Only)
	b[diagMessageSize+4] = 1
	if s, ok := parseSocket(b); !ok || !s.v6only || !s.addr.IsUnspecified() {
		f.Fatalf("%v, %v", s, ok)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parseSocket(b)
		if ok && (!s.addr.IsValid() || len(b) < diagMessageSize) {
			t.Errorf("%v from %x", s, b)
		}
	})
}

// All addresses there are belong to one scope each.
func TestScope(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"0.0.0.0": "any", "::": "any", "::ffff:0.0.0.0": "any", "127.8.9.10": "loopback", "::1": "loopback",
		"::ffff:127.0.0.1": "loopback", "192.168.1.1": "private", "172.32.0.1": "other", "fd00::1": "private",
		"fe80::1": "private", "169.254.1.1": "private", "100.127.255.255": "private", "100.128.0.0": "other",
		"::ffff:10.0.0.1": "private", "8.8.8.8": "other", "2001:db8::1": "other", "224.0.0.251": "other",
	} {
		if got := (socket{addr: netip.MustParseAddr(in)}).scope(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestPortsTooMany(t *testing.T) {
	t.Parallel()
	got := string(exposition(t, portsWith(func(uint32) ([]socket, error) {
		var out []socket
		for i := range 3000 {
			out = append(out, socket{protocol: "tcp", state: stateListen, addr: netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}), port: uint16(i)})
		}
		return out, errTooManySockets
	}), fixtureInput(t.TempDir(), Settings{})))
	lines := 0
	for l := range strings.Lines(got) {
		if !strings.HasPrefix(l, "#") {
			lines++
		}
	}
	if lines > portsMaxSeries || !strings.Contains(got, `listening_sockets{protocol="tcp",scope="other"} 3000`) || !strings.HasPrefix(got, "# partial: ") {
		t.Errorf("%d series\n%.300s", lines, got)
	}
}
