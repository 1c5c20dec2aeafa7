/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Takes out of the tables what is over: flows that are silent, and connections
 * whose end no program was told of. Go runs these from time to time.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "vmlinux.h"
#include "compat.h"
#include "connections.h"
#include "counters.h"
#include "flows.h"
#include "scope.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* What a walk over the flows found. */
struct flow_walk {
	__u64 stay;
	__u64 taken_out;
};

/*
 * A flow that has been over for as long again is taken out, so that what the
 * table evicts is what it has no room for. (A datagram in the same nanoseconds,
 * after two minutes of silence, would count twice.)
 */
static __always_inline void sweep_flow(const struct flow_key *key, const struct flow *flow, struct flow_walk *walk)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 silent = now > flow->last_seen ? now - flow->last_seen : 0;
	struct flow_key over;

	if (silent < 2 * FLOW_LIFETIME_NS) {
		walk->stay++;
		return;
	}
	over = *key;
	if (bpf_map_delete_elem(&flows, &over))
		return;
	add(&flow_balance, 0, -1);
	walk->taken_out++;
}

static long walk_flow(struct bpf_map *map, const struct flow_key *key, const struct flow *flow, struct flow_walk *walk)
{
	sweep_flow(key, flow, walk);
	return 0;
}

/*
 * iter/bpf_map, 5.8, in every period: runs bpf_for_each_map_elem(), 5.13, after
 * the last map, since of the maps nothing is wanted. Not iter/bpf_map_elem: it
 * may write to what it walks over, and some hosts refuse it for that. Writes
 * one struct flow_walk.
 */
SEC("iter/bpf_map")
int walk_flows(struct bpf_iter__bpf_map *ctx)
{
	struct flow_walk walk = {};

	if (ctx->map)
		return 0;
	bpf_for_each_map_elem(&flows, walk_flow, &walk, 0);
	bpf_seq_write(ctx->meta->seq, &walk, sizeof(walk));
	return 0;
}

/* iter/bpf_map_elem, 5.9, on the flow table: the same before 5.13. Writes one struct flow_walk for each flow. */
SEC("iter/bpf_map_elem")
int sweep_flows(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct flow_key *key = ctx->key;
	const struct flow *flow = ctx->value;
	struct flow_walk walk = {};

	if (!key || !flow)
		return 0;
	sweep_flow(key, flow, &walk);
	bpf_seq_write(ctx->meta->seq, &walk, sizeof(walk));
	return 0;
}

/*
 * Takes a connection out of the table whose end no program was told of: the
 * recursion guard kept it from running, or the host's kernel did (hooks.md).
 * Without this the gauge would drift. The programs on inet_sock_set_state take it
 * out before its socket is CLOSE, so a socket that is CLOSE and still here, or
 * that has come to listen, was missed. Memory of TCP sockets is used for TCP sockets
 * again (SLAB_TYPESAFE_BY_RCU); should it not be, it is no TCP socket any more.
 */
static __always_inline void sweep_socket(__u64 key)
{
	struct sock *sk = (void *)key;
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	struct connection gone = {};

	if (socket_protocol(sk) != IPPROTO_TCP || state == TCP_CLOSE || state == TCP_LISTEN || !in_netns(sk))
		leave(key, &gone);
}

static long walk_socket(struct bpf_map *map, const __u64 *key, struct connection *connection, void *none)
{
	sweep_socket(*key);
	return 0;
}

static long walk_socket_set(struct bpf_map *map, const __u32 *index, struct socket_set *set, void *none)
{
	__u64 key;
	int i;

	for (i = 0; i < SOCKET_WAYS; i++) {
		key = set->words[i] & ~(__u64)WORD_BITS;
		if (key)
			sweep_socket(key);
	}
	return 0;
}

/* iter/bpf_map, 5.8, with bpf_for_each_map_elem(), 5.13, once a minute: as walk_flows. */
SEC("iter/bpf_map")
int walk_sockets(struct bpf_iter__bpf_map *ctx)
{
	if (ctx->map)
		return 0;
	bpf_for_each_map_elem(&sockets, walk_socket, NULL, 0);
	bpf_for_each_map_elem(&socket_sets, walk_socket_set, NULL, 0);
	return 0;
}

/* iter/bpf_map_elem, 5.9, on the table of connections: the same before 5.13. */
SEC("iter/bpf_map_elem")
int sweep_sockets(struct bpf_iter__bpf_map_elem *ctx)
{
	const __u64 *key = ctx->key;

	if (key)
		sweep_socket(*key);
	return 0;
}

#endif
