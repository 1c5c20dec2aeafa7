/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Restricts every program to one cgroup or one network namespace. 0 means the
 * whole host: the constants are frozen before load, so the verifier removes
 * the checks and they cost nothing. Tests set them, to assert exact deltas on
 * a machine where other things run too.
 */
#ifndef SCOPE_H
#define SCOPE_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

const volatile __u64 only_cgroup = 0;
const volatile __u64 only_netns = 0; /* its inode number, as /proc/PID/ns/net has it */

static __always_inline bool in_scope(void)
{
	return !only_cgroup || bpf_get_current_cgroup_id() == only_cgroup;
}

/* Network events often come in an interrupt, where no cgroup is the right one. */
static __always_inline bool in_netns(const struct sock *sk)
{
	return !only_netns || BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) == only_netns;
}

#endif
