/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counters: one per-CPU array for each metric, named as the metric without
 * its prefix, laid out row-major in the order of its labels. Go sums the CPUs
 * and derives the series from the same order, so a counter needs no code of
 * its own there.
 */
#ifndef COUNTERS_H
#define COUNTERS_H

#include "vmlinux.h"
#include "abi.h"
#include <bpf/bpf_helpers.h>

#define COUNTER(name, size)                              \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, size);               \
		__type(key, __u32);                      \
		__type(value, __u64);                    \
	} name SEC(".maps")

/*
 * Adds n at index. Atomic although per-CPU: on a preemptible kernel a program
 * may be interrupted by another on the same CPU.
 */
static __always_inline void add(void *counter, __u32 index, __s64 n)
{
	__u64 *value = bpf_map_lookup_elem(counter, &index);

	if (value)
		__sync_fetch_and_add(value, n);
}

/* What could not be kept in a full table, by enum table. Shared. */
COUNTER(map_evictions, TABLE_COUNT);

#endif
