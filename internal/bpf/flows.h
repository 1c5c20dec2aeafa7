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

/*
 * Flows by the moment of their last datagram, in units of 2^28 ns: those of
 * the last 60 s are active. A ring of 137 s, so that a scrape adds up a few
 * numbers instead of walking the table, and a flow that the table evicted is
 * active for as long as it ought to be. A unit is cleared 17 to 34 s before its
 * turn; flow_cleared is the last that was.
 */
enum {
	FLOW_UNIT_SHIFT = 28,
	FLOW_UNITS = 512,
	FLOW_WINDOW = 224,
	FLOW_AHEAD = 128,
	FLOW_CLEAR_MAX = 384,
	FLOW_CLEAR_STEPS = 32
};

struct flow_units {
	__s64 counts[FLOW_UNITS * DIRECTION_COUNT];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_units);
} flow_ring SEC(".maps");

volatile __u64 flow_cleared = 0;

/* Clears some units, which is verified once for all its calls. */
__noinline int clear_units(__u64 from, __u64 to)
{
	const __u32 zero = 0;
	struct flow_units *ring = bpf_map_lookup_elem(&flow_ring, &zero);
	__u32 at;
	int i;

	for (i = 0; ring && i < FLOW_CLEAR_STEPS && from + i <= to; i++) {
		at = ((from + i) & (FLOW_UNITS - 1)) * DIRECTION_COUNT;
		ring->counts[at] = 0;
		ring->counts[at + 1] = 0;
	}
	return 0;
}

/* Clears what lies ahead of a unit, and the window behind it if nobody came by. */
__noinline int clear_ahead(__u64 unit)
{
	__u64 cleared = flow_cleared, from = cleared + 1, to = unit + FLOW_AHEAD;
	int i;

	if (has_compare_and_swap()) {
		if (__sync_val_compare_and_swap(&flow_cleared, cleared, to) != cleared)
			return 0;
	} else {
		flow_cleared = to;
	}
	if (from + FLOW_WINDOW < unit)
		from = unit - FLOW_WINDOW;
	for (i = 0; i < FLOW_CLEAR_MAX / FLOW_CLEAR_STEPS && from <= to; i++) {
		clear_units(from, to);
		from += FLOW_CLEAR_STEPS;
	}
	return 0;
}

static __always_inline void add_flow(__u64 unit, __u8 direction, __s64 n)
{
	const __u32 zero = 0;
	struct flow_units *ring = bpf_map_lookup_elem(&flow_ring, &zero);
	__u64 at = unit * DIRECTION_COUNT + (direction & 1);

	/* Bound the sum: before 6.3 the verifier loses the bounds of its parts. */
	barrier_var(at);
	at &= FLOW_UNITS * DIRECTION_COUNT - 1;
	if (ring)
		__sync_fetch_and_add(&ring->counts[at], n);
}

static __always_inline void flow_begins(__u64 now, __u8 direction)
{
	__u64 unit = now >> FLOW_UNIT_SHIFT;

	if (flow_cleared < unit + FLOW_AHEAD / 2)
		clear_ahead(unit);
	add_flow(unit, direction, 1);
}

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
	deliver(event, false, sizeof(*event));
}

static __always_inline void new_flow(const struct flow_key *flow, enum direction direction, __u64 now)
{
	add(&connect_total, direction * TRANSPORT_COUNT + TRANSPORT_UDP, 1);
	flow_begins(now, direction);
	if (stream)
		report_flow(flow, direction);
}

/* True for one of several CPUs that see a datagram at the same time. */
static __always_inline bool swap_time(struct flow *flow, __u64 last, __u64 now)
{
	if (has_compare_and_swap())
		return __sync_val_compare_and_swap(&flow->last_seen, last, now) == last;
	flow->last_seen = now;
	return true;
}

/*
 * A datagram went out or came in. Of several CPUs that see the first, one
 * inserts; of several that see a flow go on or come back, one moves it.
 */
static __always_inline void datagram(const struct flow_key *flow, enum direction direction)
{
	struct flow new = { .last_seen = bpf_ktime_get_ns(), .direction = direction };
	struct flow *known = bpf_map_lookup_elem(&flows, flow);
	__u64 last;
	int err;

	if (!known) {
		err = update_map(&flows, flow, &new, BPF_NOEXIST);
		if (err == -ERRNO_EXISTS)
			return;
		add(&flow_balance, 0, 1);
		new_flow(flow, direction, new.last_seen);
		return;
	}
	last = known->last_seen;
	if (last >> FLOW_UNIT_SHIFT == new.last_seen >> FLOW_UNIT_SHIFT) {
		known->last_seen = new.last_seen;
		return;
	}
	if (!swap_time(known, last, new.last_seen))
		return;
	if (last + FLOW_LIFETIME_NS > new.last_seen) {
		flow_begins(new.last_seen, known->direction);
		add_flow(last >> FLOW_UNIT_SHIFT, known->direction, -1);
		return;
	}
	known->direction = direction;
	new_flow(flow, direction, new.last_seen);
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
