/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who called connect(), by the socket's address: the states after SYN_SENT come
 * in an interrupt. For detail events only. Most are known for a moment, so each
 * has a slot to itself, and those that find it taken stand in a hash table.
 */
#ifndef CALLERS_H
#define CALLERS_H

#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "events.h"

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

enum { CALLER_SLOT_BITS = 8, CALLER_SLOTS = 1 << CALLER_SLOT_BITS };

struct caller_slot {
	__u64 key; /* 0: free */
	struct caller caller;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CALLER_SLOTS);
	__type(key, __u32);
	__type(value, struct caller_slot);
} caller_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct caller);
} callers SEC(".maps");

static __always_inline struct caller_slot *caller_slot_of(__u64 key)
{
	__u32 index;

	if (!has_slots())
		return NULL;
	barrier_var(key); /* only here it is a number for sure: see sockets.h */
	index = key * 0x9e3779b97f4a7c15ULL >> (64 - CALLER_SLOT_BITS);
	return bpf_map_lookup_elem(&caller_slots, &index);
}

static __always_inline void see_connecting(struct caller *caller, const bool btf)
{
	bool direct = btf && has_current_btf();
	struct task_struct *task = current_task(direct);
	__u64 id = bpf_get_current_pid_tgid();

	caller->tgid = id >> 32;
	caller->tid = id;
	caller->cgroup_id = bpf_get_current_cgroup_id();
	caller->legacy_cgroup_id = legacy_cgroup(task, direct);
	caller->parent = parent_of(task, direct);
	caller->uid = bpf_get_current_uid_gid();
	caller->euid = effective_uid(task, direct);
	caller->loginuid = login_uid(task, direct);
	bpf_get_current_comm(caller->comm, sizeof(caller->comm));
}

/* The current thread calls connect(). It holds the socket's lock. */
static __always_inline void remember_caller(__u64 key, const bool btf)
{
	struct caller_slot *slot;
	struct caller caller = {};

	/* in a flood hardly one of them will have an event */
	if (is_exhausted(PROBE_NETWORK))
		return;
	slot = caller_slot_of(key);
	if (slot && (slot->key == key || !__sync_val_compare_and_swap(&slot->key, 0, key))) {
		see_connecting(&slot->caller, btf);
		return;
	}
	see_connecting(&caller, btf);
	if (bpf_map_update_elem(&callers, &key, &caller, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
}

/* Takes out who called connect(). If that is not known the thread group stays 0. */
static __always_inline void recall_caller(__u64 key, struct caller *caller)
{
	struct caller_slot *slot = caller_slot_of(key);
	struct caller *known;

	if (slot && slot->key == key) {
		*caller = slot->caller;
		/* not a plain store, which arm64 may make before the copy */
		__sync_val_compare_and_swap(&slot->key, key, 0);
		return;
	}
	known = bpf_map_lookup_elem(&callers, &key);
	if (!known)
		return;
	*caller = *known;
	bpf_map_delete_elem(&callers, &key);
}

#endif
