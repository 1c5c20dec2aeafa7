/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The detail stream: what happened and who did it. Counters never pass here.
 * deliver() is the only place that puts anything in the ring, so that every event
 * produced is delivered, sampled out, or counted as lost.
 */
#ifndef EVENTS_H
#define EVENTS_H

#include "counters.h"
#include "processes.h"

/* Frequent detail, sampled. Shared; Go sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Events produced before sampling, by probe. Shared. */
COUNTER(events_total, PROBE_COUNT);
/* Events that were kept by sampling and then lost, by probe and reason. Shared. */
COUNTER(events_lost_total, PROBE_COUNT *LOSS_COUNT);

struct budget {
	__u64 window;
	__u64 used;
};

/* What each CPU has put in the ring in the present window. Shared. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} event_budget SEC(".maps");

/* Off removes the whole stream from the programs at load. */
const volatile bool detailed = false;
/* The kernel has ring buffers: 5.8. Off removes every use of them. */
const volatile bool rings = true;
/* Events for each CPU and window; 0: no limit. */
const volatile __u32 budget_per_window = 0;
/* One in how many is kept; Go changes it while the programs run. */
volatile __u32 sample_rate = 1;

enum {
	BUDGET_WINDOW_NS = 100000000,
	WAKE_AT_BYTES = 1 << 16,
};

static __always_inline bool within_budget(__u64 now)
{
	const __u32 zero = 0;
	struct budget *budget;

	if (!budget_per_window)
		return true;
	budget = bpf_map_lookup_elem(&event_budget, &zero);
	if (!budget)
		return false;
	if (budget->window != now / BUDGET_WINDOW_NS) {
		budget->window = now / BUDGET_WINDOW_NS;
		budget->used = 0;
	}
	return __sync_fetch_and_add(&budget->used, 1) < budget_per_window;
}

/* Counts an event; true if it is to be delivered, then with its weight and kind. */
static __always_inline bool admit(struct event *event, enum probe_id probe, enum event_kind kind)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 rate = sample_rate;

	add(&events_total, probe, 1);
	if (rate > 1 && bpf_get_prandom_u32() % rate)
		return false;
	if (!within_budget(now)) {
		add(&events_lost_total, probe * LOSS_COUNT + LOSS_BUDGET, 1);
		return false;
	}
	event->time_ns = now;
	event->weight = rate ?: 1;
	event->kind = kind;
	event->probe = probe;
	return true;
}

/* Fills what the current thread says of itself. */
static __always_inline void see_current(struct event *event)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();

	event->tgid = id >> 32;
	event->tid = id;
	event->uid = bpf_get_current_uid_gid();
	event->euid = BPF_CORE_READ(task, cred, euid.val);
	event->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* Hands an admitted event over. */
static __always_inline void deliver(struct event *event)
{
	struct process *process = bpf_map_lookup_elem(&processes, &event->tgid);
	__u64 flags;

	if (process)
		event->class = process->class;
	/*
	 * Waking the reader for each event costs ten times more than the
	 * event; it polls, and is woken early when a flood comes.
	 */
	flags = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= WAKE_AT_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	if (bpf_ringbuf_output(&events, event, sizeof(*event), flags))
		add(&events_lost_total, event->probe * LOSS_COUNT + LOSS_RING_FULL, 1);
}

/* An event of the current thread. */
static __always_inline void emit(struct event *event, enum probe_id probe, enum event_kind kind)
{
	if (!admit(event, probe, kind))
		return;
	see_current(event);
	deliver(event);
}

#endif
