// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/posture/version"
)

// Asks sock_diag(7) for the sockets of the exporter's network namespace (see
// sockdiag.go), finds their processes in /proc/*/fd (socket_owners.go) and
// their versions (package version). Sockets of other network namespaces, such
// as those of containers with a network of their own, are not listed.

const (
	portsDeadline  = 30 * time.Second
	portsMaxSeries = 1000
	// unknownProcess is what the labels process and app_name have when the
	// process may not be seen, or when the kernel itself listens.
	unknownProcess = "unknown"
)

// PortStates are the values of Settings.PortStates, the default first.
func PortStates() []string {
	states := slices.DeleteFunc(tcpStates(), func(s string) bool { return s == "LISTEN" })
	return slices.Insert(states, 0, "LISTEN")
}

// tcpStates are the states of Settings.PortStates in the kernel's order from
// 1 on. NEW_SYN_RECV, 12, is reported as SYN_RECV.
func tcpStates() []string {
	return []string{"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"}
}

func portsCollector() Spec { return portsWith(dumpSockets) }

// portsWith takes the source of the sockets, so that it can be replaced.
func portsWith(dump func(tcpStates uint32) ([]socket, error)) Spec {
	protocol := metric.Closed("protocol", "tcp", "tcp6", "udp", "udp6")
	ip := metric.Open("local_ip", "Address; * for any IPv4, :: for any IPv6 address.")
	port := metric.Open("local_port", "Port number.")
	exe := metric.Open("exe_path", "Executable as the process sees it, empty when not readable.")
	app := metric.Open("app_name", "Application, or the process name in lower case, or unknown.")
	release := metric.Open("version", "Version of the application, empty when it is not recorded anywhere.")
	p := &ports{
		dump: dump,
		use: metric.NewLegacy("linux_security_ports_use_info", "Socket in one of the states asked for, with its process; always 1.",
			protocol, ip, port, metric.Closed("state", tcpStates()...), metric.Open("process", "Process name, or unknown."), exe, release, app),
		listening: metric.New(metric.Gauge, "linux_security_listening_sockets", "Listening TCP sockets and unconnected UDP sockets by protocol and by who can reach their address.",
			protocol, metric.Closed("scope", "loopback", "private", "any", "other")),
		dual: metric.New(metric.Gauge, "linux_security_listening_dual_stack_sockets", "Sockets listening on any IPv6 address that accept IPv4 too.",
			metric.Closed("protocol", "tcp6", "udp6")),
		shared: metric.NewState("linux_security_listening_shared_sockets", "Listening sockets that share one address and port, as workers with SO_REUSEPORT do; absent where there is one only.",
			protocol, ip, port),
		application: metric.NewState("linux_security_listener_application_info", "Application that listens, with the source that states its version; always 1.",
			exe, app, release, metric.Closed("version_source", version.Sources()...)),
	}
	return Spec{
		Name:      "ports",
		Help:      "Listening sockets with process, executable, version and application.",
		Metrics:   []*metric.Metric{p.use, p.listening, p.dual, p.shared, p.application},
		Deadline:  portsDeadline,
		MaxSeries: portsMaxSeries,
		Collect:   p.collect,
	}
}

type ports struct {
	dump   func(tcpStates uint32) ([]socket, error)
	owners owners
	finder *version.Finder

	use, listening, dual, shared, application *metric.Metric
}

func (p *ports) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	if p.finder == nil {
		p.finder = version.NewFinder(in.Now)
	}
	wanted, err := stateMask(in.Settings.PortStates)
	if err != nil {
		return err
	}
	sockets, dumpErr := p.dump(wanted | 1<<stateListen)
	if dumpErr != nil && !errors.Is(dumpErr, errTooManySockets) {
		return dumpErr
	}
	p.summarise(sockets, out)

	sockets = slices.DeleteFunc(sockets, func(s socket) bool { return !s.shown(wanted) })
	owner, ownErr := p.owners.find(ctx, in, sockets)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	who := p.finder.Find(ctx, in.Root, distinct(owner.pids), owner.same)
	p.list(sockets, owner.pids, who, out)
	return Partial(errors.Join(dumpErr, ownErr))
}

// stateMask is the set of TCP states by number.
func stateMask(names []string) (uint32, error) {
	if len(names) == 0 {
		return 1 << stateListen, nil
	}
	mask := uint32(0)
	for _, name := range names {
		i := slices.Index(tcpStates(), name)
		if i < 0 {
			return 0, fmt.Errorf("port state %q does not exist: use some of %v", name, tcpStates())
		}
		mask |= 1 << (i + 1)
	}
	return mask, nil
}

// shown tells whether the states asked for include the socket. An unconnected
// UDP socket counts as LISTEN; a connected one is a client and is not dumped.
func (s socket) shown(wanted uint32) bool {
	if s.listens() {
		return wanted&(1<<stateListen) != 0
	}
	return s.protocol[:3] == "tcp" && wanted&(1<<s.state) != 0
}

func (s socket) stateName() string {
	if s.listens() {
		return "LISTEN"
	}
	return tcpStates()[s.state-1]
}

// ip is the label local_ip. An IPv4 address mapped into IPv6 stays apart from
// the IPv6 address that it resembles.
func (s socket) ip() string {
	if s.addr.IsUnspecified() && s.addr.Is4() {
		return "*"
	}
	return s.addr.String()
}

// scope is who can reach the address.
func (s socket) scope() string {
	a := s.addr.Unmap()
	switch {
	case s.addr.IsUnspecified(), a.IsUnspecified():
		return "any"
	case a.IsLoopback():
		return "loopback"
	case a.IsPrivate(), a.IsLinkLocalUnicast(), netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(a):
		return "private"
	}
	return "other"
}

// summarise counts what listens. It comes before the list, which may reach
// the cap.
func (p *ports) summarise(sockets []socket, out *metric.Batch) {
	type place struct{ protocol, scope string }
	type address struct {
		protocol string
		addr     netip.Addr
		port     uint16
		iface    uint32
	}
	count, dual, sharers := make(map[place]int), make(map[string]int), make(map[address]int)
	for _, s := range sockets {
		if !s.listens() {
			continue
		}
		count[place{s.protocol, s.scope()}]++
		sharers[address{s.protocol, s.addr, s.port, s.iface}]++
		if s.addr.Is6() && s.addr.IsUnspecified() && !s.v6only {
			dual[s.protocol]++
		}
	}
	for at, n := range count {
		out.Add(p.listening, float64(n), at.protocol, at.scope)
	}
	for protocol, n := range dual {
		out.Add(p.dual, float64(n), protocol)
	}
	out.Fill([]*metric.Metric{p.listening, p.dual})
	for at, n := range sharers {
		if n > 1 {
			s := socket{protocol: at.protocol, addr: at.addr}
			out.Add(p.shared, float64(n), at.protocol, s.ip(), strconv.Itoa(int(at.port)))
		}
	}
}

// list adds one series for each address and executable. Of several processes
// with the same executable, the one with the lowest pid gives its name.
func (p *ports) list(sockets []socket, owner map[uint32]int, who map[int]version.Identity, out *metric.Batch) {
	type entry struct{ protocol, ip, port, state, exe string }
	slices.SortStableFunc(sockets, func(a, b socket) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol), a.addr.Compare(b.addr), cmp.Compare(owner[a.inode], owner[b.inode]))
	})
	listed := make(map[entry]bool)
	for _, s := range sockets {
		id, known := who[owner[s.inode]]
		if !known {
			id = version.Identity{Name: unknownProcess, App: unknownProcess, Source: version.None}
		}
		e := entry{s.protocol, s.ip(), strconv.Itoa(int(s.port)), s.stateName(), id.Exe}
		if listed[e] {
			continue
		}
		listed[e] = true
		out.Add(p.use, 1, e.protocol, e.ip, e.port, e.state, id.Name, id.Exe, id.Version, id.App)
		if known && s.listens() {
			out.Add(p.application, 1, id.Exe, id.App, id.Version, string(id.Source))
		}
	}
}

// distinct are the pids that own a socket, ascending.
func distinct(owner map[uint32]int) []int {
	var out []int
	for _, pid := range owner {
		out = append(out, pid)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var errSomeHidden = errors.New("some sockets have no process: the exporter may not look into every process, which takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")

// ownerless is the error of a pass that found too little, nil if it saw all.
func ownerless(left, denied int) error {
	if left == 0 || denied == 0 {
		return nil
	}
	return fmt.Errorf("%w (%d sockets, %d processes): %w", errSomeHidden, left, denied, hostfs.ErrPermission)
}
