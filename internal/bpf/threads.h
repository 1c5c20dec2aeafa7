/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The credentials last seen of a thread. They change only in calls and execs
 * that are hooked, so what was last seen is what the thread had before the next
 * of them: no entry needs a hook. Most threads have what their group has, which
 * stands in the process table; those that differ have an entry of their own.
 */
#ifndef THREADS_H
#define THREADS_H

#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "credentials.h"
#include "processes.h"

struct last_seen {
	__u64 effective;
	__u32 euid;
	__u32 pad;
};

/* Threads that differ from their group, by tid; process.apart says there are. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct last_seen);
} threads SEC(".maps");

static __always_inline struct last_seen seen_in(const struct cred *cred, const bool btf)
{
	struct last_seen seen = { .euid = LOAD(btf, cred, euid.val) };

	seen.effective = capabilities(&cred->cap_effective, btf);
	return seen;
}

/*
 * What was last seen of a thread; false if nothing was: its group is in a full
 * table's place, or nobody keeps the table.
 */
static __always_inline bool last_seen_of(__u64 pid_tgid, const struct process *process, struct last_seen *seen)
{
	__u32 tid = pid_tgid;
	struct last_seen *own;

	if (!process || process->apart) {
		own = bpf_map_lookup_elem(&threads, &tid);
		if (own) {
			*seen = *own;
			return true;
		}
	}
	if (!process)
		return false;
	seen->euid = process->seen_euid;
	seen->effective = process->seen_caps;
	return true;
}

/* The only thread of its group, zombies counted. */
static __always_inline bool is_alone(struct task_struct *task, const bool btf)
{
	struct signal_struct *signal = LOAD(btf, task, signal);

	return LOAD(btf, signal, nr_threads) == 1;
}

/* Forgets a thread's own entry, if its group has any. */
static __always_inline void forget_thread(const struct process *process, __u32 tid)
{
	if (!process || process->apart)
		bpf_map_delete_elem(&threads, &tid);
}

/* The credentials of the group's only thread are the group's. */
static __always_inline void see_alone(struct process *process, const struct last_seen *seen)
{
	process->seen_euid = seen->euid;
	process->seen_caps = seen->effective;
	process->apart = 0;
}

/*
 * Remembers the credentials of the current thread; alone: its group has no
 * other. Global, so that the verifier goes through it once and not for each
 * part of the process table.
 */
__noinline int see(__u32 euid, __u64 effective, bool alone)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct last_seen seen = { .euid = euid, .effective = effective };
	struct process *process = process_of(id >> 32);
	__u32 tid = id;

	if (process && alone) {
		forget_thread(process, tid);
		see_alone(process, &seen);
		return 0;
	}
	if (process && process->seen_euid == euid && process->seen_caps == effective) {
		forget_thread(process, tid);
		return 0;
	}
	if (bpf_map_update_elem(&threads, &tid, &seen, BPF_ANY))
		add(&map_evictions, TABLE_THREADS, 1);
	else if (process)
		process->apart = 1;
	return 0;
}

/* A new thread has what the thread has that made it. */
static __always_inline void inherit(const struct process *process, __u32 parent, __u32 child)
{
	struct last_seen *own, seen;

	if (!process || !process->apart)
		return;
	own = bpf_map_lookup_elem(&threads, &parent);
	if (!own)
		return;
	seen = *own;
	if (bpf_map_update_elem(&threads, &child, &seen, BPF_ANY))
		add(&map_evictions, TABLE_THREADS, 1);
}

/*
 * Raises what a group is known to have, so that the same is not counted for
 * each thread. It may hide a gain; it cannot invent one.
 */
static __always_inline void raise(struct process *process, const struct last_seen *seen)
{
	if (!process)
		return;
	if (!seen->euid)
		process->seen_euid = 0;
	process->seen_caps |= seen->effective;
}

#endif
