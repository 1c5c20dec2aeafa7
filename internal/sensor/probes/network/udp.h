/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs that count UDP: a flow is a socket and a remote address.
 */
#ifndef UDP_H
#define UDP_H

#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "flows.h"
#include "remote.h"
#include "scope.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* What the UDP hooks have in common: is it ours to count? */
static __always_inline bool is_udp(const struct sock *sk)
{
	const __u16 inet = 2, inet6 = 10;
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return socket_protocol(sk) == IPPROTO_UDP && (family == inet || family == inet6) && in_netns(sk);
}

/* Where a message goes: to its own address, else to where the socket is connected. */
static __always_inline void destination(const struct sock *sk, struct msghdr *msg, struct remote *remote)
{
	const __u16 unspecified = 0, inet = 2, inet6 = 10;
	__u16 of_socket = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct sockaddr_in *v4 = BPF_CORE_READ(msg, msg_name);
	struct sockaddr_in6 *v6 = (void *)v4;
	__u16 family = v4 ? BPF_CORE_READ(v4, sin_family) : unspecified;

	if (v4 && (family == inet || (family == unspecified && of_socket == inet))) {
		set_ipv4(remote, BPF_CORE_READ(v4, sin_addr.s_addr));
		remote->port = BPF_CORE_READ(v4, sin_port);
	} else if (v4 && family == inet6) {
		BPF_CORE_READ_INTO(&remote->address, v6, sin6_addr.in6_u.u6_addr32);
		remote->port = BPF_CORE_READ(v6, sin6_port);
	} else {
		remote_of(sk, remote, false);
	}
}

/* Where a received datagram came from, by its own headers. */
static __always_inline void source(struct sk_buff *skb, struct remote *remote)
{
	const __u16 ipv6_ethertype = 0x86dd;
	unsigned char *head = BPF_CORE_READ(skb, head);
	void *network = head + BPF_CORE_READ(skb, network_header);
	struct udphdr *udp = (void *)(head + BPF_CORE_READ(skb, transport_header));
	struct ipv6hdr *v6 = network;
	struct iphdr *v4 = network;

	if (BPF_CORE_READ(skb, protocol) == bpf_htons(ipv6_ethertype))
		BPF_CORE_READ_INTO(&remote->address, v6, saddr.in6_u.u6_addr32);
	else
		set_ipv4(remote, BPF_CORE_READ(v4, saddr));
	remote->port = BPF_CORE_READ(udp, source);
}

static __always_inline int sent(struct sock *sk, struct msghdr *msg, int ret)
{
	struct flow_key flow = {};

	if (ret < 0 || !is_udp(sk))
		return 0;
	flow.socket = bpf_get_socket_cookie(sk);
	destination(sk, msg, &flow.remote);
	datagram(&flow, DIRECTION_OUT);
	return 0;
}

/*
 * fexit/udp_sendmsg, fexit/udpv6_sendmsg, 5.12 (before, no socket cookie in
 * tracing programs). A UDP send that succeeded, with its address in kernel
 * memory: whichever call it was, io_uring and kernel users included. An IPv6
 * socket that sends to an IPv4 address passes both, with the same address.
 * Not the packet hooks below: there a datagram has no socket cookie when it is
 * forwarded. Misses: tunnels in the kernel, which send without a socket call;
 * counts corked data (MSG_MORE) that is thrown away before it is sent.
 */
SEC("fexit/udp_sendmsg")
int BPF_PROG(on_udp_sendmsg, struct sock *sk, struct msghdr *msg, size_t len, int ret)
{
	return sent(sk, msg, ret);
}

SEC("fexit/udpv6_sendmsg")
int BPF_PROG(on_udpv6_sendmsg, struct sock *sk, struct msghdr *msg, size_t len, int ret)
{
	return sent(sk, msg, ret);
}

/*
 * fentry/skb_consume_udp, 4.10 (5.12 for the cookie). The reader has copied a
 * datagram and gives it back: also when no address was asked for. Not
 * udp_recvmsg, which knows the address only if asked. Misses: what a BPF
 * program takes from the queue (sockmap), and what nobody reads.
 */
SEC("fentry/skb_consume_udp")
int BPF_PROG(on_skb_consume_udp, struct sock *sk, struct sk_buff *skb)
{
	struct flow_key flow = {};

	if (!is_udp(sk))
		return 0;
	flow.socket = bpf_get_socket_cookie(sk);
	source(skb, &flow.remote);
	datagram(&flow, DIRECTION_IN);
	return 0;
}

/* kprobes have no cookie of a socket: the number of its inode, 0 without one. */
static __always_inline __u64 inode_of_socket(struct sock *sk)
{
	struct socket_alloc *socket = (void *)BPF_CORE_READ(sk, sk_socket);

	return socket ? BPF_CORE_READ(socket, vfs_inode.i_ino) : 0;
}

static __always_inline int sends(struct sock *sk, struct msghdr *msg)
{
	struct flow_key flow = {};

	if (!is_udp(sk))
		return 0;
	flow.socket = inode_of_socket(sk);
	destination(sk, msg, &flow.remote);
	remember(&flow, DIRECTION_OUT);
	return 0;
}

static __always_inline int has_sent(int ret)
{
	struct flow_key flow;

	if (recall(&flow) && ret >= 0)
		datagram(&flow, DIRECTION_OUT);
	return 0;
}

/*
 * kprobe and kretprobe on the same three functions: kernels before 5.12, and
 * those that refuse trampolines. Misses what they miss, and the sends in a
 * moment when all return probes of a function are taken.
 */
SEC("kprobe/udp_sendmsg")
int BPF_KPROBE(on_enter_udp_sendmsg, struct sock *sk, struct msghdr *msg)
{
	return sends(sk, msg);
}

SEC("kretprobe/udp_sendmsg")
int BPF_KRETPROBE(on_exit_udp_sendmsg, int ret)
{
	return has_sent(ret);
}

SEC("kprobe/udpv6_sendmsg")
int BPF_KPROBE(on_enter_udpv6_sendmsg, struct sock *sk, struct msghdr *msg)
{
	return sends(sk, msg);
}

SEC("kretprobe/udpv6_sendmsg")
int BPF_KRETPROBE(on_exit_udpv6_sendmsg, int ret)
{
	return has_sent(ret);
}

SEC("kprobe/skb_consume_udp")
int BPF_KPROBE(on_enter_skb_consume_udp, struct sock *sk, struct sk_buff *skb)
{
	struct flow_key flow = {};

	if (!is_udp(sk))
		return 0;
	flow.socket = inode_of_socket(sk);
	source(skb, &flow.remote);
	datagram(&flow, DIRECTION_IN);
	return 0;
}

enum { LET_PASS = 1 };

static __always_inline bool begin_flow(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	if (ctx->protocol != IPPROTO_UDP)
		return false;
	if (only_netns_cookie && bpf_get_netns_cookie(ctx) != only_netns_cookie)
		return false;
	flow->socket = bpf_get_socket_cookie(ctx);
	flow->remote.port = ctx->user_port;
	return true;
}

static __always_inline bool ipv4_flow(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	if (!begin_flow(ctx, flow))
		return false;
	set_ipv4(&flow->remote, ctx->user_ip4);
	return true;
}

static __always_inline bool ipv6_flow(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	if (!begin_flow(ctx, flow))
		return false;
	flow->remote.address[0] = ctx->user_ip6[0];
	flow->remote.address[1] = ctx->user_ip6[1];
	flow->remote.address[2] = ctx->user_ip6[2];
	flow->remote.address[3] = ctx->user_ip6[3];
	return true;
}

static __always_inline bool is_connected(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->dst_port;
}

/*
 * A send with an address of its own. It may still fail, so its end decides;
 * but of a flow that was seen in the last 100 ms the end would tell nothing
 * new, and to remember costs more than all the rest. (On a connected socket
 * the end would take it for a send to the peer.)
 */
static __always_inline void sending(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	if (is_connected(ctx) || !is_fresh(flow))
		remember(flow, DIRECTION_OUT);
}

/*
 * cgroup/sendmsg4 and 6, 4.18, on the root of the hierarchy, where they run
 * last and see what other programs made of the address. They run for a send
 * with an address of its own, on any socket; on_sock_send_length tells how it
 * ended. An IPv6 socket that sends to an IPv4 address comes to sendmsg4. They
 * always let the datagram pass.
 */
SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv4_flow(ctx, &flow))
		sending(ctx, &flow);
	return LET_PASS;
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv6_flow(ctx, &flow))
		sending(ctx, &flow);
	return LET_PASS;
}

/*
 * What was received is there already. A connected socket is counted at
 * on_sock_recv_length, by this address: the datagram may be one from somebody
 * else that came before the connect().
 */
static __always_inline void received(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	if (is_connected(ctx))
		remember(flow, DIRECTION_IN);
	else
		datagram(flow, DIRECTION_IN);
}

/*
 * cgroup/recvmsg4 and 6, 5.2. They run for a receive that asks for the
 * address, once the datagram is copied. Misses: a receive on a socket that is
 * not connected and asks for no address.
 */
SEC("cgroup/recvmsg4")
int on_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv4_flow(ctx, &flow))
		received(ctx, &flow);
	return LET_PASS;
}

SEC("cgroup/recvmsg6")
int on_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv6_flow(ctx, &flow))
		received(ctx, &flow);
	return LET_PASS;
}

/* The end of a socket call: by the address remembered, else by the connection. */
static __always_inline void call_ended(struct sock *sk, enum direction direction, bool moved)
{
	struct flow_key flow = {}, remembered = {};
	bool has_address = recall(&remembered);

	if (!moved || (!has_address && !sk->__sk_common.skc_dport))
		return;
	flow.socket = bpf_get_socket_cookie(sk);
	if (has_address && remembered.socket == flow.socket) {
		datagram(&remembered, direction);
		return;
	}
	remote_of(sk, &flow.remote, true);
	if (flow.remote.port)
		datagram(&flow, direction);
}

/* Most sockets that send and receive are something else. */
static __always_inline bool is_udp_btf(const struct sock *sk)
{
	const __u16 inet = 2, inet6 = 10;

	return sk && sk->sk_protocol == IPPROTO_UDP && in_netns(sk) &&
	       (sk->__sk_common.skc_family == inet || sk->__sk_common.skc_family == inet6);
}

/*
 * tp_btf/sock_send_length, 6.3. The result of every socket send, io_uring and
 * kernel users included. It carries no address: see above. Misses: what
 * fexit/udp_sendmsg misses, and before 6.5 sendfile() to a UDP socket.
 */
SEC("tp_btf/sock_send_length")
int BPF_PROG(on_sock_send_length, struct sock *sk, int ret, int flags)
{
	if (is_udp_btf(sk))
		call_ended(sk, DIRECTION_OUT, ret >= 0);
	return 0;
}

/*
 * tp_btf/sock_recv_length, 6.3. The result of every socket receive, for those
 * that are connected. A read from the error queue is no datagram; neither is
 * the 0 that a socket shut for reading returns, which is taken for a
 * datagram's length otherwise.
 */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_sock_recv_length, struct sock *sk, int ret, int flags)
{
	const int msg_errqueue = 0x2000, rcv_shutdown = 1;

	if (is_udp_btf(sk) && sk->__sk_common.skc_dport)
		call_ended(sk, DIRECTION_IN,
			   ret >= 0 && !(flags & msg_errqueue) && (ret || !(sk->sk_shutdown & rcv_shutdown)));
	return 0;
}

/*
 * cgroup/connect4, connect6 (4.17), sendmsg4 and sendmsg6 where nothing tells
 * the result: before 6.3 without trampolines and kprobes. An approximation:
 * connect() counts without a datagram (getaddrinfo() makes such), a send
 * counts although it failed, and a connected socket's flow is not seen again
 * after its first 60 s.
 */
SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv4_flow(ctx, &flow))
		datagram(&flow, DIRECTION_OUT);
	return LET_PASS;
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv6_flow(ctx, &flow))
		datagram(&flow, DIRECTION_OUT);
	return LET_PASS;
}

SEC("cgroup/sendmsg4")
int on_sendmsg4_unconfirmed(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv4_flow(ctx, &flow))
		datagram(&flow, DIRECTION_OUT);
	return LET_PASS;
}

SEC("cgroup/sendmsg6")
int on_sendmsg6_unconfirmed(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv6_flow(ctx, &flow))
		datagram(&flow, DIRECTION_OUT);
	return LET_PASS;
}

SEC("cgroup/recvmsg4")
int on_recvmsg4_unconfirmed(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv4_flow(ctx, &flow))
		datagram(&flow, DIRECTION_IN);
	return LET_PASS;
}

SEC("cgroup/recvmsg6")
int on_recvmsg6_unconfirmed(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ipv6_flow(ctx, &flow))
		datagram(&flow, DIRECTION_IN);
	return LET_PASS;
}

#endif
