/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of TCP connections: which sockets are one, from ESTABLISHED to
 * CLOSE, by their address. The gauge follows the table and cannot drift from
 * it.
 *
 * It has two parts. In the first an entry is a word, in one of the few places
 * of the socket's set, so that a connection touches one cache line and takes no
 * memory from a list. In the hash table is what is older than the exporter, and
 * what finds its set full. Who enters or changes a socket holds its lock; only
 * the programs that fill and sweep the table may run beside.
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "abi.h"
#include "compat.h"
#include "counters.h"

enum { ERRNO_EXISTS = 17 };

/* Up at entry into the table, down at removal. Not named as its metric, which has UDP too. */
COUNTER(tcp_active, DIRECTION_COUNT);

struct connection {
	__u8 direction;
	__u8 established; /* 0: two that opened to each other, half-way */
	__u8 pad[6];
};

/* A socket's address, whose last bits are zero, with a connection in them; 0: free. */
enum { WORD_DIRECTION = 1, WORD_ESTABLISHED = 2, WORD_BITS = 3 };

struct socket_set {
	__u64 words[SOCKET_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKET_SETS);
	__type(key, __u32);
	__type(value, struct socket_set);
} socket_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS_BESIDE_SETS);
	__type(key, __u64);
	__type(value, struct connection);
} sockets SEC(".maps");

/*
 * Go fills the table with what is older than the exporter. A socket that it may
 * see before the hook does must be entered where both look.
 */
volatile bool filling = true;
/* Since when one that is half-way may be beside the sets. */
volatile bool half_way_beside = false;

/* The key of a socket: its address, a number where the sets make one of it. */
static __always_inline __u64 key_of(const struct sock *sk, const bool btf)
{
	return btf && has_slots() ? address(sk) : (__u64)sk;
}

/* Knuth's multiplicative hash: sockets lie a multiple of some 64 bytes apart. */
static __always_inline struct socket_set *set_of(__u64 key)
{
	__u32 index;

	if (!has_slots())
		return NULL;
	barrier_var(key); /* only here it is a number for sure */
	index = key * 0x9e3779b97f4a7c15ULL >> (64 - SOCKET_SET_BITS);
	return bpf_map_lookup_elem(&socket_sets, &index);
}

/* The word of a socket in its set, NULL if it is not there. */
static __always_inline __u64 *word_of(struct socket_set *set, __u64 key)
{
	int i;

	if (!set)
		return NULL;
	for (i = 0; i < SOCKET_WAYS; i++)
		if ((set->words[i] & ~(__u64)WORD_BITS) == key)
			return &set->words[i];
	return NULL;
}

static __always_inline __u64 word_for(__u64 key, const struct connection *connection)
{
	barrier_var(key);
	return key | (connection->direction & WORD_DIRECTION) | (connection->established ? WORD_ESTABLISHED : 0);
}

static __always_inline void read_word(__u64 word, struct connection *connection)
{
	connection->direction = word & WORD_DIRECTION;
	connection->established = !!(word & WORD_ESTABLISHED);
}

/* Enters a socket that is not in its set; false if that is full, or there are none. */
static __always_inline bool take_word(struct socket_set *set, __u64 key, const struct connection *connection)
{
	__u64 word;
	int i;

	if (!set)
		return false;
	word = word_for(key, connection);
	for (i = 0; i < SOCKET_WAYS; i++)
		if (!set->words[i] && !__sync_val_compare_and_swap(&set->words[i], 0, word))
			return true;
	return false;
}

/* A connection is established whose socket has an entry: it is half-way, or its end was not seen. */
static __always_inline void go_on(struct connection *known, struct connection *new)
{
	if (known->established) {
		add(&tcp_active, known->direction, -1);
		known->direction = new->direction;
	}
	known->established = 1;
	new->direction = known->direction;
	add(&tcp_active, new->direction, 1);
}

/* Enters a connection beside the sets. */
static __always_inline void enter_beside(__u64 key, struct connection *new)
{
	int err = update_map(&sockets, &key, new, BPF_NOEXIST);
	struct connection *known;

	if (!err) {
		add(&tcp_active, new->direction, 1);
		return;
	}
	if (err != -ERRNO_EXISTS) {
		add(&map_evictions, TABLE_SOCKETS, 1);
		return;
	}
	known = bpf_map_lookup_elem(&sockets, &key);
	if (known)
		go_on(known, new);
}

/* Enters a connection that is established now. If it was half-way, that knows its direction. */
static __always_inline enum direction enter_connection(__u64 key, struct connection *new)
{
	struct socket_set *set = set_of(key);
	struct connection known = {};
	__u64 *word = word_of(set, key), was;

	was = word ? *word : 0;
	if (was) { /* else a sweep has just taken it out */
		read_word(was, &known);
		go_on(&known, new);
		__sync_val_compare_and_swap(word, was, word_for(key, &known));
		return new->direction;
	}
	if (filling || (half_way_beside && bpf_map_lookup_elem(&sockets, &key)) || !take_word(set, key, new))
		enter_beside(key, new);
	else
		add(&tcp_active, new->direction, 1);
	return new->direction;
}

/* Enters one that is half-way, which is not active yet. */
static __always_inline void enter_half_way(__u64 key, struct connection *half_way)
{
	struct socket_set *set = set_of(key);
	int err;

	if (word_of(set, key) || (!filling && take_word(set, key, half_way)))
		return;
	half_way_beside = true;
	err = update_map(&sockets, &key, half_way, BPF_NOEXIST);
	if (err && err != -ERRNO_EXISTS)
		add(&map_evictions, TABLE_SOCKETS, 1);
}

/* Enters one that is older than the exporter, if the hook has not yet. */
static __always_inline void fill_connection(__u64 key, struct connection *old)
{
	int err;

	if (word_of(set_of(key), key))
		return;
	err = update_map(&sockets, &key, old, BPF_NOEXIST);
	if (!err)
		add(&tcp_active, old->direction, 1);
	else if (err != -ERRNO_EXISTS)
		add(&map_evictions, TABLE_SOCKETS, 1);
}

/* Takes a connection out of the table; false if it was not there. */
static __always_inline bool leave(__u64 key, struct connection *gone)
{
	__u64 *word = word_of(set_of(key), key), was;
	struct connection *known;
	bool taken;

	if (word) {
		was = *word;
		read_word(was, gone);
		taken = __sync_val_compare_and_swap(word, was, 0) == was;
	} else {
		known = bpf_map_lookup_elem(&sockets, &key);
		if (!known)
			return false;
		*gone = *known;
		taken = !bpf_map_delete_elem(&sockets, &key);
	}
	if (taken && gone->established)
		add(&tcp_active, gone->direction, -1);
	return true;
}

#endif
