/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP connections by the state changes of their sockets. A connection is
 * counted when it is established; it is active while its socket is in the
 * table.
 */
#ifndef CONNECTIONS_H
#define CONNECTIONS_H

#include "abi.h"
#include "callers.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include "remote.h"
#include "scope.h"
#include "sockets.h"

enum { ERRNO_PIPE = 32, ERRNO_RESET = 104, ERRNO_TIMEOUT = 110, ERRNO_REFUSED = 111 };

COUNTER(connect_total, DIRECTION_COUNT *TRANSPORT_COUNT);
COUNTER(connect_error_total, CONNECT_ERROR_COUNT);

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
	if (caller->tgid) {
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

static __always_inline void connected(const struct sock *sk, int oldstate, const bool btf)
{
	struct connection new = {
		.direction = oldstate == TCP_SYN_SENT ? DIRECTION_OUT : DIRECTION_IN,
		.established = 1,
	};
	__u64 key = key_of(sk, btf);
	enum direction direction = enter_connection(key, &new);
	struct caller caller = {};

	add(&connect_total, direction * TRANSPORT_COUNT + TRANSPORT_TCP, 1);
	if (!stream)
		return;
	if (direction == DIRECTION_OUT)
		recall_caller(key, &caller);
	report_connection(sk, EVENT_CONNECT, direction, &caller, btf);
}

/*
 * Two that connect to each other: both have sent first, so both are `out`,
 * but the way to ESTABLISHED leads through SYN_RECV.
 */
static __always_inline void crossed(__u64 key)
{
	struct connection half_way = { .direction = DIRECTION_OUT };

	enter_half_way(key, &half_way);
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

static __always_inline void closed(const struct sock *sk, int oldstate, const bool btf)
{
	bool attempt = oldstate == TCP_SYN_SENT, known;
	struct connection gone = {};
	__u64 key = key_of(sk, btf);
	struct caller caller = {};
	enum connect_error error;

	if (oldstate == TCP_LISTEN || oldstate == TCP_CLOSE)
		return;
	known = !attempt && leave(key, &gone);
	if (oldstate == TCP_SYN_RECV && !known)
		return; /* a peer that never finished opening */
	error = connect_error(LOAD(btf, sk, sk_err), !attempt);
	if (stream && (attempt || oldstate == TCP_SYN_RECV))
		recall_caller(key, &caller);
	if (error != CONNECT_ERROR_COUNT) {
		add(&connect_error_total, error, 1);
		if (stream && detailed)
			report_connection(sk, EVENT_CONNECT_ERROR, error, &caller, btf);
	}
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
		crossed(key_of(sk, btf));
	else
		remember_caller(key_of(sk, btf), btf);
	return 0;
}

#endif
