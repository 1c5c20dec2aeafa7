/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The detail stream: what happened and who did it. Counters never pass here.
 * reserve() and deliver() are the only way into a ring, so that every event
 * produced is delivered, sampled out, or counted as lost.
 */
#ifndef EVENTS_H
#define EVENTS_H

#include "counters.h"
#include "path.h"
#include "processes.h"

/* Frequent detail, sampled. Shared. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 19);
} events SEC(".maps");

/*
 * Rare and serious detail: privilege gains, modules, critical writes,
 * suspicious execs. Never sampled, and never behind the frequent. Shared.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 17);
} serious_events SEC(".maps");

/* A reader sets its element before it sleeps: the next event wakes it. Shared. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, READER_COUNT);
	__type(key, __u32);
	__type(value, __u32);
} sleeping_readers SEC(".maps");

/* Events produced before sampling, by probe. Shared. */
COUNTER(events_total, PROBE_COUNT);
/* Those of them that sampling left out. Shared. */
COUNTER(events_sampled_total, PROBE_COUNT);
/* Those of them that are serious. Shared. */
COUNTER(events_serious_total, PROBE_COUNT);
/* Events that were kept by sampling and then lost, by probe and reason. Shared. */
COUNTER(events_lost_total, PROBE_COUNT *LOSS_COUNT);

struct budget {
	__u64 tick; /* jiffies at the last look at the clock */
	__u64 window;
	__u64 used;
};

/*
 * What each CPU has put in the rings in the present window, of each probe, the
 * serious apart: so that a flood of set-id calls cannot hide who reads a
 * password file, nor one of suspicious execs a privilege gain. Shared.
 */
enum { BUDGET_SERIOUS = PROBE_COUNT, BUDGET_COUNT = 2 * PROBE_COUNT };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUDGET_COUNT);
	__type(key, __u32);
	__type(value, struct budget);
} event_budget SEC(".maps");

/* The kernel has ring buffers: 5.8. Off removes every use of them. */
const volatile bool rings = true;
/* Off removes the detail stream from the programs at load. */
const volatile bool stream = false;
/* What Top-N has no use for, but who reads each event may: exits, failed connections. */
const volatile bool detailed = false;
/* Events for each probe, CPU and window; 0: no limit. */
const volatile __u32 budget_per_window = 0;
/* One in how many is kept; Go changes it while the programs run. */
volatile __u32 sample_rate = 1;

enum {
	BUDGET_WINDOW_NS = 100000000,
	/* a quarter of the ring, and a sixteenth of the other */
	WAKE_AT_BYTES = 1 << 17,
	WAKE_SERIOUS_AT_BYTES = 1 << 13,
};

/*
 * What is used of a budget in the present window. The clock costs more than the
 * rest, so it is asked once in each tick. Not atomic: what an interrupt may add
 * in between is one event more.
 */
static __always_inline struct budget *present_budget(__u32 which)
{
	struct budget *budget = bpf_map_lookup_elem(&event_budget, &which);
	__u64 tick = bpf_jiffies64(), window;

	if (!budget || budget->tick == tick)
		return budget;
	budget->tick = tick;
	window = bpf_ktime_get_ns() / BUDGET_WINDOW_NS;
	if (budget->window != window) {
		budget->window = window;
		budget->used = 0;
	}
	return budget;
}

static __always_inline bool within_budget(__u32 which)
{
	struct budget *budget;

	if (!budget_per_window)
		return true;
	budget = present_budget(which);
	if (!budget || budget->used >= budget_per_window)
		return false;
	budget->used++;
	return true;
}

/* Nothing frequent of this probe passes any more in this window, on this CPU. */
static __always_inline bool is_exhausted(enum probe_id probe)
{
	struct budget *budget;

	if (!budget_per_window)
		return false;
	budget = present_budget(probe);
	return budget && budget->used >= budget_per_window;
}

static __always_inline void lose(enum probe_id probe, enum loss reason)
{
	add(&events_lost_total, probe * LOSS_COUNT + reason, 1);
}

/* Counts an event. How many it stands for if it is to be delivered, else 0. */
static __always_inline __u32 admit(enum probe_id probe, bool serious)
{
	__u32 rate = serious ? 1 : sample_rate;

	add(&events_total, probe, 1);
	if (serious)
		add(&events_serious_total, probe, 1);
	if (rate > 1 && bpf_get_prandom_u32() % rate) {
		add(&events_sampled_total, probe, 1);
		return 0;
	}
	if (!within_budget(serious ? BUDGET_SERIOUS + probe : probe)) {
		lose(probe, LOSS_BUDGET);
		return 0;
	}
	return rate ?: 1;
}

/*
 * Counts an event and, if it is to be delivered, makes room for it: size bytes
 * that begin with a struct event. They must be given to deliver().
 */
static __always_inline void *reserve(enum probe_id probe, enum event_kind kind, bool serious, const __u64 size)
{
	__u32 weight = admit(probe, serious);
	struct event *event;

	if (!weight)
		return NULL;
	if (serious)
		event = bpf_ringbuf_reserve(&serious_events, size, 0);
	else
		event = bpf_ringbuf_reserve(&events, size, 0);
	if (!event) {
		lose(probe, LOSS_RING_FULL);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->kind = kind;
	event->probe = probe;
	event->class = NO_CLASS;
	event->loginuid = NO_ID;
	return event;
}

/* Is this the first event after the reader went to sleep? */
static __always_inline bool ends_sleep(__u32 reader)
{
	__u32 *sleeps = bpf_map_lookup_elem(&sleeping_readers, &reader);

	if (!sleeps || !*sleeps)
		return false;
	*sleeps = 0;
	return true;
}

/*
 * Hands an event over. A wake-up costs as much as the rest of the event, so
 * while events come the reader polls, and is woken early only by the event with
 * which another quarter of the ring is waiting; of the serious ones, another
 * sixteenth. When none come it sleeps until the next.
 */
static __always_inline void deliver(void *event, bool serious, const __u64 size)
{
	const __u64 record = size + BPF_RINGBUF_HDR_SZ;
	bool wake;

	if (serious)
		wake = bpf_ringbuf_query(&serious_events, BPF_RB_AVAIL_DATA) % WAKE_SERIOUS_AT_BYTES < record ||
		       ends_sleep(READER_SERIOUS);
	else
		wake = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) % WAKE_AT_BYTES < record ||
		       ends_sleep(READER_FREQUENT);
	bpf_ringbuf_submit(event, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

static __always_inline __u32 parent_of(struct task_struct *task, const bool btf)
{
	struct task_struct *parent = LOAD(btf, task, real_parent);

	return LOAD(btf, parent, tgid);
}

static __always_inline __u32 effective_uid(struct task_struct *task, const bool btf)
{
	const struct cred *cred = LOAD(btf, task, cred);

	return LOAD(btf, cred, euid.val);
}

/* Fills the class that the thread group has by now. */
static __always_inline void see_class(struct event *event)
{
	event->class = class_of(event->tgid);
}

/*
 * Fills what the current thread says of itself, but for its class. In hooks of
 * tracing (btf), direct loads do it for half the price.
 */
static __always_inline void see_current(struct event *event, bool btf)
{
	struct task_struct *task = current_task(btf);
	__u64 id = bpf_get_current_pid_tgid();

	event->tgid = id >> 32;
	event->tid = id;
	event->parent = parent_of(task, btf);
	event->uid = bpf_get_current_uid_gid();
	event->euid = effective_uid(task, btf);
	event->loginuid = login_uid(task, btf);
	event->cgroup_id = bpf_get_current_cgroup_id();
	event->legacy_cgroup_id = legacy_cgroup(task, btf);
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* Marks a text of the event that is not whole. */
static __always_inline void cut(struct event *event, int text)
{
	event->truncated |= 1 << text;
}

/* Fills the path of the current thread's image. */
static __always_inline void see_executable(struct event_with_executable *event, bool btf)
{
	struct task_struct *task = current_task(btf);
	struct mm_struct *mm = LOAD(btf, task, mm);
	struct file *file = mm ? LOAD(btf, mm, exe_file) : NULL;

	if (file && !write_path(event->executable, &event->event.lengths[0], file, btf))
		cut(&event->event, 0);
}

/* Fills the path of a program that is about to run, by the address of its file. */
static __always_inline void see_image(struct event_with_executable *event, __u64 image)
{
	if (!write_path(event->executable, &event->event.lengths[0], (void *)image, false))
		cut(&event->event, 0);
}

#endif
