/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP connections by the state changes of their sockets. A connection is
 * counted when it is established; it is active while its socket is in the
 * table, so the gauge follows the table and cannot drift from it.
 */
#ifndef CONNECTIONS_H
#define CONNECTIONS_H

#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include "remote.h"
#include "scope.h"

enum { ERRNO_EXISTS = 17, ERRNO_PIPE = 32, ERRNO_RESET = 104, ERRNO_TIMEOUT = 110, ERRNO_REFUSED = 111 };

COUNTER(connect_total, DIRECTION_COUNT *TRANSPORT_COUNT);
COUNTER(connect_error_total, CONNECT_ERROR_COUNT);
/* Up at entry into the table, down at removal. Not named as its metric, which has UDP too. */
COUNTER(tcp_active, DIRECTION_COUNT);

struct connection {
	__u8 direction;
	__u8 established; /* 0: two that opened to each other, half-way */
	__u8 pad[6];
};

/* By the socket's address, from ESTABLISHED to CLOSE. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct connection);
} sockets SEC(".maps");

/* Who called connect(): the states after SYN_SENT come in an interrupt. */
struct caller {
	__u64 cgroup_id;
	__u64 legacy_cgroup_id;
	__u32 tgid;
	__u32 tid;
	__u32 parent;
	__u32 uid;
	__u32 euid;
	__u32 loginuid;
	__u8 comm[COMM_LEN];
};

/* By the socket's address, in SYN_SENT, for detail events only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct caller);
} callers SEC(".maps");

static __always_inline void remember_caller(__u64 key, const bool btf)
{
	bool direct = btf && has_current_btf();
	struct task_struct *task;
	__u64 id = bpf_get_current_pid_tgid();
	struct caller caller = { .tgid = id >> 32, .tid = id };

	/* in a flood hardly one of them will have an event */
	if (is_exhausted(PROBE_NETWORK))
		return;
	task = current_task(direct);
	caller.cgroup_id = bpf_get_current_cgroup_id();
	caller.legacy_cgroup_id = legacy_cgroup(task, direct);
	caller.parent = parent_of(task, direct);
	caller.uid = bpf_get_current_uid_gid();
	caller.euid = effective_uid(task, direct);
	caller.loginuid = login_uid(task, direct);
	bpf_get_current_comm(caller.comm, sizeof(caller.comm));
	if (bpf_map_update_elem(&callers, &key, &caller, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
}

/*
 * Never the current task: it may be anyone whom the packet interrupted. The
 * caller of connect() if known; else what the socket says of its owner, with
 * thread group 0. What it executes is not known here: its exec event told.
 */
static __always_inline void report_connection(const struct sock *sk, enum event_kind kind, __u8 what,
					      const struct caller *caller, const bool btf)
{
	struct remote remote = {};
	struct event *event = reserve(PROBE_NETWORK, kind, false, sizeof(*event));

	if (!event)
		return;
	remote_of(sk, &remote, btf);
	__builtin_memcpy(event->address, remote.address, sizeof(event->address));
	event->port = bpf_ntohs(remote.port);
	event->what = what;
	event->how = TRANSPORT_TCP;
	if (caller) {
		event->cgroup_id = caller->cgroup_id;
		event->legacy_cgroup_id = caller->legacy_cgroup_id;
		event->tgid = caller->tgid;
		event->tid = caller->tid;
		event->parent = caller->parent;
		event->uid = caller->uid;
		event->euid = caller->euid;
		event->loginuid = caller->loginuid;
		__builtin_memcpy(event->comm, caller->comm, sizeof(event->comm));
		see_class(event);
	} else {
		event->cgroup_id = cgroup_of_socket(sk, btf);
		event->uid = event->euid = LOAD(btf, sk, sk_uid.val);
	}
	deliver(event, false, sizeof(*event));
}

/*
 * Enters a connection. The entry that is there already is either half-way,
 * then it knows the direction, or one whose end was not seen.
 */
static __always_inline enum direction enter_connection(__u64 key, struct connection *new)
{
	int err = update_map(&sockets, &key, new, BPF_NOEXIST);
	struct connection *known;

	if (err && err != -ERRNO_EXISTS) {
		add(&map_evictions, TABLE_SOCKETS, 1);
		return new->direction;
	}
	if (err) {
		known = bpf_map_lookup_elem(&sockets, &key);
		if (!known)
			return new->direction;
		if (known->established) {
			add(&tcp_active, known->direction, -1);
			known->direction = new->direction;
		}
		known->established = 1;
		new->direction = known->direction;
	}
	add(&tcp_active, new->direction, 1);
	return new->direction;
}

static __always_inline void connected(const struct sock *sk, int oldstate, const bool btf)
{
	struct connection new = {
		.direction = oldstate == TCP_SYN_SENT ? DIRECTION_OUT : DIRECTION_IN,
		.established = 1,
	};
	__u64 key = (__u64)sk;
	enum direction direction = enter_connection(key, &new);
	struct caller *caller = NULL;

	add(&connect_total, direction * TRANSPORT_COUNT + TRANSPORT_TCP, 1);
	if (!stream)
		return;
	if (direction == DIRECTION_OUT)
		caller = bpf_map_lookup_elem(&callers, &key);
	report_connection(sk, EVENT_CONNECT, direction, caller, btf);
	if (caller)
		bpf_map_delete_elem(&callers, &key);
}

/*
 * Two that connect to each other: both have sent first, so both are `out`,
 * but the way to ESTABLISHED leads through SYN_RECV.
 */
static __always_inline void crossed(__u64 key)
{
	struct connection half_way = { .direction = DIRECTION_OUT };

	int err = update_map(&sockets, &key, &half_way, BPF_NOEXIST);

	if (err && err != -ERRNO_EXISTS)
		add(&map_evictions, TABLE_SOCKETS, 1);
}

/*
 * CONNECT_ERROR_COUNT if it is none. A socket's error is cleared by connect()
 * (tcp_connect_init()) and set before the state changes: tcp_reset(),
 * tcp_write_err() and the ICMP handlers, in all releases. tcp_disconnect()
 * sets one after, for who aborts by itself. An ICMP error on an established connection (IP_RECVERR) may leave a refusal
 * behind that ended nothing, so only attempts can be refused; and only a
 * connection that was established can be reset.
 */
static __always_inline enum connect_error connect_error(int err, bool established)
{
	switch (err) {
	case ERRNO_TIMEOUT:
		return CONNECT_ERROR_TIMEOUT;
	case ERRNO_REFUSED:
		return established ? CONNECT_ERROR_COUNT : CONNECT_ERROR_REFUSED;
	case ERRNO_RESET:
	case ERRNO_PIPE:
		return established ? CONNECT_ERROR_RESET : CONNECT_ERROR_COUNT;
	default:
		return CONNECT_ERROR_COUNT;
	}
}

/* Enters one that is older than the exporter, if the hook has not yet. */
static __always_inline void fill_connection(__u64 key, struct connection *old)
{
	int err = update_map(&sockets, &key, old, BPF_NOEXIST);

	if (!err)
		add(&tcp_active, old->direction, 1);
	else if (err != -ERRNO_EXISTS)
		add(&map_evictions, TABLE_SOCKETS, 1);
}

/* Takes a connection out of the table; false if it was not there. */
static __always_inline bool leave(__u64 key, struct connection *gone)
{
	struct connection *known = bpf_map_lookup_elem(&sockets, &key);

	if (!known)
		return false;
	*gone = *known;
	if (!bpf_map_delete_elem(&sockets, &key) && gone->established)
		add(&tcp_active, gone->direction, -1);
	return true;
}

static __always_inline void closed(const struct sock *sk, int oldstate, const bool btf)
{
	bool attempt = oldstate == TCP_SYN_SENT, known;
	struct connection gone = {};
	__u64 key = (__u64)sk;
	struct caller *caller = NULL;
	enum connect_error error;

	if (oldstate == TCP_LISTEN || oldstate == TCP_CLOSE)
		return;
	known = !attempt && leave(key, &gone);
	if (oldstate == TCP_SYN_RECV && !known)
		return; /* a peer that never finished opening */
	error = connect_error(LOAD(btf, sk, sk_err), !attempt);
	if (stream && (attempt || oldstate == TCP_SYN_RECV))
		caller = bpf_map_lookup_elem(&callers, &key);
	if (error != CONNECT_ERROR_COUNT) {
		add(&connect_error_total, error, 1);
		if (stream && detailed)
			report_connection(sk, EVENT_CONNECT_ERROR, error, caller, btf);
	}
	if (caller)
		bpf_map_delete_elem(&callers, &key);
}

/* Most changes tell nothing: asked first, before the socket is looked at. */
static __always_inline bool is_of_interest(int oldstate, int newstate)
{
	return newstate == TCP_ESTABLISHED || newstate == TCP_CLOSE ||
	       (newstate == TCP_SYN_RECV && oldstate == TCP_SYN_SENT) || (stream && newstate == TCP_SYN_SENT);
}

/* A state change. It is told before it is made. */
static __always_inline int state_changes(const struct sock *sk, int oldstate, int newstate, const bool btf)
{
	if (!is_of_interest(oldstate, newstate) || (btf ? sk->sk_protocol : socket_protocol(sk)) != IPPROTO_TCP ||
	    !in_netns(sk))
		return 0;
	if (newstate == TCP_ESTABLISHED)
		connected(sk, oldstate, btf);
	else if (newstate == TCP_CLOSE)
		closed(sk, oldstate, btf);
	else if (newstate == TCP_SYN_RECV)
		crossed((__u64)sk);
	else
		remember_caller((__u64)sk, btf);
	return 0;
}

#endif
