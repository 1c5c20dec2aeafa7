// SPDX-License-Identifier: Apache-2.0

// Package network counts TCP connections and UDP flows by direction, and the
// connections that failed.
package network

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf network.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../../bpf -I../../../bpf/vmlinux

// New declares the probe. What it declares serves one Probe.
func New() *probe.Spec {
	direction := metric.Closed("direction", abi.Directions...)
	protocol := metric.Closed("protocol", abi.Transports...)
	active := metric.New(metric.Gauge, "security_ebpf_connect_active",
		"Connections now: TCP connections established and not closed, UDP flows with a datagram in the last 60 seconds.",
		direction, protocol)
	flows, sockets := &sweeper{}, &socketSweeper{}
	return &probe.Spec{
		Index:  int(abi.ProbeNetwork),
		Load:   loadBpf,
		Object: _BpfBytes,
		Metrics: []*metric.Metric{
			metric.New(metric.Counter, "security_ebpf_connect_total",
				"Connections: TCP when established, UDP when the first datagram passes between a socket and a peer.",
				direction, protocol),
			active,
			metric.New(metric.Counter, "security_ebpf_connect_error_total",
				"TCP connections that failed, by how.", metric.Closed("type", abi.ConnectErrors...)),
		},
		Parts: []probe.Part{
			{Name: "tcp", Rungs: tcpRungs()},
			{Name: "udp", Rungs: udpRungs()},
			{Name: "tcp in interrupts", Auxiliary: true, Applies: hasGuard, Rungs: []probe.Rung{
				{Hook: "tp_btf/inet_sock_set_state", Programs: []string{"find_guard", "on_held_up_inet_sock_set_state"}, Requires: guardAndCasts},
				{Hook: "tp_btf/inet_sock_set_state", Programs: []string{"find_guard", "on_held_up_inet_sock_set_state_probed"}, Requires: guard},
			}},
			{Name: "older connections", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "iter/tcp", Programs: []string{"fill_sockets"}},
			}},
			{Name: "connections whose end was missed", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "iter/bpf_map", Programs: []string{"walk_sockets"}, Requires: forEach},
				{Hook: "iter/bpf_map_elem", Programs: []string{"sweep_sockets"}},
			}},
			{Name: "flows that are over", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "iter/bpf_map", Programs: []string{"walk_flows"}, Requires: forEach},
				{Hook: "iter/bpf_map_elem", Programs: []string{"sweep_flows"}},
			}},
		},
		Started:  started,
		Collect:  func(p *probe.Probe, batch *metric.Batch) { collect(p, active, batch) },
		Periodic: func(p *probe.Probe) error { return errors.Join(flows.sweep(p), sockets.sweep(p)) },
		Tables:   func(p *probe.Probe) []probe.Table { return tables(p, flows) },
	}
}

func started(p *probe.Probe) error { return errors.Join(standIn(p), fill(p)) }

// hasGuard: since 6.1 a tracing program is kept from running twice on a CPU,
// and the part that makes up for it needs the rung that it makes up for.
func hasGuard(p *probe.Probe) error {
	if !p.Runs("on_inet_sock_set_state") {
		return probe.ErrNotApplicable
	}
	return guard(p.Host())
}

func guard(h *probe.Host) error {
	if !h.HasGuard() {
		return probe.ErrNotApplicable
	}
	return nil
}

func guardAndCasts(h *probe.Host) error {
	if err := guard(h); err != nil {
		return err
	}
	return probe.NeedsCasts(h)
}

// standIn tells the second program where the first one's guard is.
func standIn(p *probe.Probe) error {
	const first = "on_inet_sock_set_state"
	second := "on_held_up_inet_sock_set_state"
	if !p.Runs(second) {
		second += "_probed"
	}
	if !p.Runs(second) {
		return nil
	}
	id, err := p.ProgramID(first)
	if err != nil {
		return err
	}
	if err := p.Variable("guarded_program").Set(id); err != nil {
		return fmt.Errorf("set guarded_program: %w", err)
	}
	if _, err := p.Iterate("find_guard", 1); err != nil {
		return err
	}
	var distance uint64
	if err := p.Variable("guard_distance").Get(&distance); err != nil {
		return fmt.Errorf("get guard_distance: %w", err)
	}
	if distance == 0 {
		return errors.New("the guard of " + first + " was not found")
	}
	p.Cover(first, second)
	return nil
}

func tcpRungs() []probe.Rung {
	return []probe.Rung{
		{Hook: "tp_btf/inet_sock_set_state", Programs: []string{"on_inet_sock_set_state"}},
		{Hook: "raw_tracepoint/inet_sock_set_state", Programs: []string{"on_raw_inet_sock_set_state"}},
		{Hook: "tracepoint/sock/inet_sock_set_state", Programs: []string{"on_classic_inet_sock_set_state"}},
	}
}

// cookies: tracing programs may ask for a socket's cookie since 5.12, where
// the helper check_mtu is new too.
func cookies(h *probe.Host) error {
	if !h.HasHelper("check_mtu") {
		return fmt.Errorf("%w: no bpf_get_socket_cookie in tracing programs before 5.12", probe.ErrHookMissing)
	}
	return nil
}

// forEach: programs may walk over a map since 5.13.
func forEach(h *probe.Host) error {
	if !h.HasHelper("for_each_map_elem") {
		return fmt.Errorf("%w: no bpf_for_each_map_elem before 5.13", probe.ErrHookMissing)
	}
	return nil
}

// udpRungs: the IPv6 functions are optional, since IPv6 may be left out of a kernel.
func udpRungs() []probe.Rung {
	return []probe.Rung{
		{
			Hook:     "fexit/udp_sendmsg",
			Programs: []string{"on_udp_sendmsg", "on_skb_consume_udp"},
			Optional: []string{"on_udpv6_sendmsg"},
			Requires: cookies,
		},
		{
			Hook:     "kprobe/udp_sendmsg",
			Programs: []string{"on_enter_udp_sendmsg", "on_exit_udp_sendmsg", "on_enter_skb_consume_udp"},
			Optional: []string{"on_enter_udpv6_sendmsg", "on_exit_udpv6_sendmsg"},
		},
		{
			Hook: "cgroup/sendmsg4+tp_btf/sock_send_length",
			Programs: []string{
				"on_sock_send_length", "on_sock_recv_length",
				"on_sendmsg4", "on_sendmsg6", "on_recvmsg4", "on_recvmsg6",
			},
		},
		{
			Hook: "cgroup/connect4",
			Programs: []string{
				"on_connect4", "on_connect6", "on_sendmsg4_unconfirmed", "on_sendmsg6_unconfirmed",
				"on_recvmsg4_unconfirmed", "on_recvmsg6_unconfirmed",
			},
		},
	}
}

// collect adds the gauge of both protocols: each has its own source.
func collect(p *probe.Probe, active *metric.Metric, batch *metric.Batch) {
	udp, err := activeFlows(p, monotonic())
	if err != nil {
		p.Log().Warn("active UDP flows are not known", "err", err)
	}
	for i, direction := range abi.Directions {
		tcp, err := p.Counter("tcp_active", uint32(i))
		if err != nil {
			p.Log().Warn("active TCP connections are not known", "err", err)
		}
		batch.Add(active, float64(max(tcp, 0)), direction, "tcp")
		batch.Add(active, float64(udp[i]), direction, "udp")
	}
}

// tables says how full the three tables are. Sockets has one entry for each
// active connection; pending is empty but for calls in progress. Only the
// flow table evicts by itself: the programs count what the others refuse.
func tables(p *probe.Probe, flows *sweeper) []probe.Table {
	var out []probe.Table
	add := func(name string, index int, entries func(*ebpf.Map) int, evictions uint64) {
		if m := p.Map(name); m != nil {
			out = append(out, probe.Table{
				Name: abi.Tables[index], Entries: entries(m), Capacity: int(m.MaxEntries()), Evictions: evictions,
			})
		}
	}
	add("sockets", int(abi.TableSockets), func(*ebpf.Map) int { return connections(p) }, 0)
	if sets := p.Map("socket_sets"); sets != nil && p.Host().Slots {
		out[0].Capacity += int(sets.MaxEntries() * abi.SocketWays)
	}
	live := flows.reading()
	add("flows", int(abi.TableFlows), func(*ebpf.Map) int { return live.entries }, live.evicted)
	add("pending", int(abi.TablePending), countKeys, 0)
	return out
}

// connections is the number of active TCP connections.
func connections(p *probe.Probe) int {
	var sum int64
	for i := range abi.Directions {
		n, err := p.Counter("tcp_active", uint32(i))
		if err != nil {
			p.Log().Warn("active TCP connections are not known", "err", err)
		}
		sum += n
	}
	return int(max(sum, 0))
}
