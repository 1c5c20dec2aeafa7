/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * UDP flows: a socket and a far end that have exchanged a datagram in the
 * last 60 s. Every hook that sees a datagram ends in datagram().
 */
#ifndef FLOWS_H
#define FLOWS_H

#include "connections.h"

#define FLOW_LIFETIME_NS 60000000000ULL

struct flow_key {
	__u64 socket; /* cookie or inode number: never used again, as an address is */
	struct remote remote;
	__u8 pad[4];
};

struct flow {
	__u64 last_seen; /* ns, CLOCK_MONOTONIC */
	__u8 direction;	 /* enum direction: who sent first */
	__u8 pad[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Entries put into flows less those taken out: what it lacks was evicted. */
COUNTER(flow_balance, 1);

/* Between the hook that knows the address and the one that knows the result. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32); /* tid */
	__type(value, struct flow_key);
} pending SEC(".maps");

/* Datagrams are seen in the call that sends or takes them. */
static __always_inline void report_flow(const struct flow_key *flow, enum direction direction)
{
	struct event_with_executable *event = reserve(PROBE_NETWORK, EVENT_CONNECT, false, sizeof(*event));

	if (!event)
		return;
	event->event.what = direction;
	event->event.how = TRANSPORT_UDP;
	event->event.port = bpf_ntohs(flow->remote.port);
	__builtin_memcpy(event->event.address, flow->remote.address, sizeof(event->event.address));
	see_current(&event->event, false);
	see_class(&event->event);
	see_executable(event, false);
	deliver(event, false);
}

static __always_inline void new_flow(const struct flow_key *flow, enum direction direction)
{
	add(&connect_total, direction * TRANSPORT_COUNT + TRANSPORT_UDP, 1);
	if (stream)
		report_flow(flow, direction);
}

/*
 * A datagram went out or came in. Of several CPUs that see the first, one
 * inserts; of several that see a flow come back, one swaps the time.
 */
static __always_inline void datagram(const struct flow_key *flow, enum direction direction)
{
	struct flow new = { .last_seen = bpf_ktime_get_ns(), .direction = direction };
	struct flow *known = bpf_map_lookup_elem(&flows, flow);
	__u64 last;
	long err;

	if (!known) {
		err = bpf_map_update_elem(&flows, flow, &new, BPF_NOEXIST);
		if (err == -ERRNO_EXISTS)
			return;
		add(&flow_balance, 0, 1);
		new_flow(flow, direction);
		return;
	}
	last = known->last_seen;
	if (last + FLOW_LIFETIME_NS > new.last_seen) {
		known->last_seen = new.last_seen;
		return;
	}
	if (has_compare_and_swap()) {
		if (__sync_val_compare_and_swap(&known->last_seen, last, new.last_seen) != last)
			return;
	} else {
		known->last_seen = new.last_seen;
	}
	known->direction = direction;
	new_flow(flow, direction);
}

/* Flows with a datagram that recently need not be looked after. */
#define FLOW_FRESH_NS 100000000ULL

static __always_inline bool is_fresh(const struct flow_key *flow)
{
	struct flow *known = bpf_map_lookup_elem(&flows, flow);

	return known && known->last_seen + FLOW_FRESH_NS > bpf_ktime_get_ns();
}

/*
 * Remembers an address until the call's result is known. When there is no
 * room the datagram is counted at once: most calls succeed.
 */
static __always_inline void remember(const struct flow_key *flow, enum direction direction)
{
	__u32 tid = bpf_get_current_pid_tgid();

	if (!bpf_map_update_elem(&pending, &tid, flow, BPF_ANY))
		return;
	add(&map_evictions, TABLE_PENDING, 1);
	datagram(flow, direction);
}

/* Takes back what this thread remembered; false if it was nothing. */
static __always_inline bool recall(struct flow_key *flow)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct flow_key *known = bpf_map_lookup_elem(&pending, &tid);

	if (!known)
		return false;
	*flow = *known;
	bpf_map_delete_elem(&pending, &tid);
	return true;
}

#endif
