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

static __always_inline bool in_scope(void)
{
	return !only_cgroup || bpf_get_current_cgroup_id() == only_cgroup;
}

#endif
