//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Network connections: TCP by socket state here, UDP by flow in udp.h. What is
 * over and still in a table is taken out in sweep.h.
 */
#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include "connections.h"
#include "counters.h"
#include "guard.h"
#include "remote.h"
#include "scope.h"
#include "sweep.h"
#include "udp.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * tp_btf/inet_sock_set_state, 5.5. Every state change of every TCP socket,
 * whoever causes it: a call, a packet or a timer. Not the calls: they say
 * nothing of who was refused or reset. Misses: a server socket with TCP Fast
 * Open that is closed before the handshake ends, since it is never
 * established. A subflow of MPTCP is a TCP connection; a connection restored
 * with TCP_REPAIR is a new `out`.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_inet_sock_set_state, const struct sock *sk, int oldstate, int newstate)
{
	return state_changes(sk, oldstate, newstate, true);
}

/* Runs of the program below in place of the one above. */
COUNTER(stood_in, 1);

static __always_inline int held_up_state_changes(const struct sock *sk, int oldstate, int newstate, const bool cast)
{
	if (!is_of_interest(oldstate, newstate) || !is_held_up(cast))
		return 0;
	add(&stood_in, 0, 1);
	return state_changes(sk, oldstate, newstate, true);
}

/*
 * The same again: takes over the changes in an interrupt that hit the program
 * above, since 6.1 (guard.h). Before, nothing is held up.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_held_up_inet_sock_set_state, const struct sock *sk, int oldstate, int newstate)
{
	return held_up_state_changes(sk, oldstate, newstate, true);
}

/* The same before 6.2, without the cast. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_held_up_inet_sock_set_state_probed, const struct sock *sk, int oldstate, int newstate)
{
	return held_up_state_changes(sk, oldstate, newstate, false);
}

/* iter/bpf_prog, 5.9, once: only here a program can look at another. */
SEC("iter/bpf_prog")
int find_guard(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *prog = ctx->prog;

	if (prog)
		find_guard_of(prog);
	return 0;
}

/*
 * The same as a raw tracepoint, 4.17, where programs of type tracing are
 * refused. Misses, since 6.1: changes in an interrupt that hits this program
 * (events_lost_total, reason recursion).
 */
SEC("raw_tracepoint/inet_sock_set_state")
int on_raw_inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	return state_changes((void *)ctx->args[0], ctx->args[1], ctx->args[2], false);
}

/*
 * The same as a classic tracepoint, 4.16. All classic tracepoints of a CPU
 * share one recursion guard, so more state changes inside an interrupt are lost.
 */
SEC("tracepoint/sock/inet_sock_set_state")
int on_classic_inet_sock_set_state(struct trace_event_raw_inet_sock_set_state *ctx)
{
	return state_changes(ctx->skaddr, ctx->oldstate, ctx->newstate, false);
}

struct listening_port {
	__u32 netns; /* inode number */
	__u16 port;
	__u8 pad[2];
};

/* Ports that were listened on when the table was filled. Emptied after. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct listening_port);
	__type(value, __u8);
} listeners SEC(".maps");

/*
 * iter/tcp, 5.9. Fills the table with the connections that are older than the
 * exporter, after the hook is attached; one run for each network namespace. It
 * visits listening sockets first: a connection to a port of theirs came in.
 * Since 5.16 the iterator holds the socket's lock; before, a connection may
 * end between the look and the entry, so it is looked at again. Misses: the
 * direction of a connection whose listener is gone (taken for `out`), and
 * namespaces that the exporter may not enter.
 */
SEC("iter/tcp")
int fill_sockets(struct bpf_iter__tcp *ctx)
{
	const __u32 live = 1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT |
			   1 << TCP_LAST_ACK | 1 << TCP_CLOSING;
	struct sock_common *common = ctx->sk_common;
	struct connection old = { .direction = DIRECTION_OUT, .established = 1 };
	struct listening_port listener = {};
	const __u8 yes = 1;
	struct sock *sk;
	__u64 key;

	/* Neither half-open nor in TIME_WAIT: those are other structures. */
	sk = common ? (struct sock *)bpf_skc_to_tcp_sock(common) : NULL;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || !in_netns(sk))
		return 0;
	listener.netns = sk->__sk_common.skc_net.net->ns.inum;
	listener.port = sk->__sk_common.skc_num;
	if (sk->__sk_common.skc_state == TCP_LISTEN) {
		bpf_map_update_elem(&listeners, &listener, &yes, BPF_ANY);
		return 0;
	}
	if (!(1 << sk->__sk_common.skc_state & live))
		return 0;
	if (bpf_map_lookup_elem(&listeners, &listener))
		old.direction = DIRECTION_IN;
	key = key_of(sk, true);
	fill_connection(key, &old);
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		leave(key, &old);
	return 0;
}
