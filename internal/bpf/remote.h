/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The far end of a socket or a datagram, IPv4 always as ::ffff:a.b.c.d: an
 * IPv6 socket that talks to such an address is then no other than an IPv4 one.
 */
#ifndef REMOTE_H
#define REMOTE_H

#include "compat.h"
#include <bpf/bpf_endian.h>

struct remote {
	__be32 address[4];
	__be16 port;
	__u8 pad[2];
};

static __always_inline void set_ipv4(struct remote *remote, __be32 address)
{
	remote->address[0] = 0;
	remote->address[1] = 0;
	remote->address[2] = bpf_htonl(0xffff);
	remote->address[3] = address;
}

/* Of a connected socket; port 0 if it is not. */
static __always_inline void remote_of(const struct sock *sk, struct remote *remote, const bool btf)
{
	const __u16 ipv6 = 10;
	const struct in6_addr *address = &sk->__sk_common.skc_v6_daddr;

	remote->port = LOAD(btf, sk, __sk_common.skc_dport);
	if (LOAD(btf, sk, __sk_common.skc_family) != ipv6) {
		set_ipv4(remote, LOAD(btf, sk, __sk_common.skc_daddr));
	} else if (btf) {
		remote->address[0] = address->in6_u.u6_addr32[0];
		remote->address[1] = address->in6_u.u6_addr32[1];
		remote->address[2] = address->in6_u.u6_addr32[2];
		remote->address[3] = address->in6_u.u6_addr32[3];
	} else {
		BPF_CORE_READ_INTO(&remote->address, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32);
	}
}

#endif
