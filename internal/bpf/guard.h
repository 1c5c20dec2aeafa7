/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Since 6.1 a tracing program does not run while it already runs on the same
 * CPU. A tracepoint that fires in calls and in interrupts loses what happens
 * in an interrupt that hits the program: a whole batch of packets at once. So
 * a second program stands in for the first: it looks at the first one's guard,
 * which is up only while the first runs below the interrupt, and then does its
 * work. An interrupt that hits the second leaves the first free to run.
 */
#ifndef GUARD_H
#define GUARD_H

#include "compat.h"
#include <bpf/bpf_helpers.h>

/* For each CPU the address of the guard, once it was needed there. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} guards SEC(".maps");

/* The id of the program that is guarded; Go sets it. */
volatile __u32 guarded_program = 0;
/* From this CPU's element of guards to this CPU's guard; 0: not known. */
volatile __u64 guard_distance = 0;

/* Says where the guard of the guarded program is. For iter/bpf_prog. */
static __always_inline void find_guard_of(struct bpf_prog *prog)
{
	struct bpf_array *array = (void *)address(&guards);

	if (BPF_CORE_READ(prog, aux, id) != guarded_program)
		return;
	guard_distance = (__u64)BPF_CORE_READ(prog, active) - (__u64)BPF_CORE_READ(array, pptrs[0]);
}

/*
 * True while the guarded program is held up on this CPU. Asked several times
 * for each connection, so with a direct load (cast), where there is one.
 */
static __always_inline bool is_held_up(const bool cast)
{
	const __u32 zero = 0;
	__u64 *guard = bpf_map_lookup_elem(&guards, &zero);
	__u32 running = 0;

	if (!guard || !guard_distance)
		return false;
	if (!*guard)
		*guard = address(guard) + guard_distance;
	if (cast)
		return CAST(true, struct refcount_struct, *guard)->refs.counter;
	bpf_probe_read_kernel(&running, sizeof(running), (void *)*guard);
	return running;
}

#endif
