/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The process table, shared by all objects: what is known of each live thread
 * group. The process probe keeps it; the others read the class, and the
 * privilege probe keeps the credentials last seen.
 *
 * It has two parts. Each fork touches a new place, and in a hash table that is
 * memory which no cache holds. The kernel gives ids in turn, so whose fork is
 * seen gets a slot by the last bits of its id, next to those of a moment ago.
 * In the hash table is who is older than the exporter, and who finds the slot
 * taken. Nobody is in both.
 */
#ifndef PROCESSES_H
#define PROCESSES_H

#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROCESS_SLOTS);
	__type(key, __u32);
	__type(value, struct process_slot);
} process_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROCESSES_BESIDE_SLOTS);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

static __always_inline struct process_slot *slot_of(__u32 tgid)
{
	__u32 index = tgid % PROCESS_SLOTS;

	return has_slots() ? bpf_map_lookup_elem(&process_slots, &index) : NULL;
}

static __always_inline bool holds(const struct process_slot *slot, __u32 tgid)
{
	return slot && slot->tgid == tgid && tgid;
}

/* What is known of a thread group, NULL if it is not in the table. */
static __always_inline struct process *process_of(__u32 tgid)
{
	struct process_slot *slot = slot_of(tgid);

	if (holds(slot, tgid))
		return &slot->process;
	return bpf_map_lookup_elem(&processes, &tgid);
}

/*
 * The class of a thread group, NO_CLASS if it is not in the table. Global, so
 * that the verifier goes through what follows it once and not for each part.
 */
__noinline int class_of(__u32 tgid)
{
	struct process *process = process_of(tgid);

	return process ? process->class : NO_CLASS;
}

/*
 * Puts a thread group into its slot, whose child has not run yet, so that
 * nobody else looks for it; false if the slot is taken.
 */
static __always_inline bool take_slot(__u32 tgid, const struct process *process)
{
	struct process_slot *slot = slot_of(tgid);

	if (!slot || slot->tgid || __sync_val_compare_and_swap(&slot->tgid, 0, tgid))
		return false;
	slot->process = *process;
	return true;
}

enum taken_out { WAS_NOT_THERE, BY_ANOTHER, BY_US };

/* Takes a thread group out of the table. Of several at once one does. */
static __always_inline enum taken_out take_out(__u32 tgid, struct process *gone)
{
	struct process_slot *slot = slot_of(tgid);
	struct process *process;

	if (holds(slot, tgid)) {
		*gone = slot->process;
		return __sync_val_compare_and_swap(&slot->tgid, tgid, 0) == tgid ? BY_US : BY_ANOTHER;
	}
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process)
		return WAS_NOT_THERE;
	*gone = *process;
	return bpf_map_delete_elem(&processes, &tgid) ? BY_ANOTHER : BY_US;
}

#endif
