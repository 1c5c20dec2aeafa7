/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a thread group: what its fork, its execs and its exit do to the
 * process table, the counters and the events, whichever hook saw them.
 */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#include "vmlinux.h"
#include "abi.h"
#include "classify.h"
#include "compat.h"
#include "counters.h"
#include "credentials.h"
#include "events.h"
#include "processes.h"
#include "scope.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

enum { EEXIST_ERRNO = 17 };

COUNTER(process_exec_total, CLASS_COUNT);
COUNTER(process_exit_total, CLASS_COUNT);
/* Up at entry into the table, down at removal: a gauge that cannot drift. */
COUNTER(process_active_count, CLASS_COUNT);

/*
 * What the last look before an exec said of its scripts, by tgid. Least
 * recently used: a process may be killed before its exec is counted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} script_verdicts SEC(".maps");

/* The arguments of a program go into its exec events. They may hold secrets. */
const volatile bool arguments = false;

/* Their memory was written a moment ago; if it is paged out already, they are cut. */
static __always_inline void see_arguments(struct event_with_texts *event)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 start = BPF_CORE_READ(mm, arg_start), length = BPF_CORE_READ(mm, arg_end) - start;

	if (length > ARGUMENTS_MAX) {
		length = ARGUMENTS_MAX;
		cut(&event->event, 1);
	}
	if (!length)
		return;
	if (bpf_probe_read_user(event->second, length, (void *)start))
		cut(&event->event, 1);
	else
		event->event.lengths[1] = length;
}

/*
 * Global, so that the verifier goes through it once and not for each hook. And
 * it asks itself whether it is wanted: before 6.8 a global function is checked
 * although nobody calls it.
 */
__noinline int report_exec(__u32 class)
{
	bool serious = class == CLASS_SUSPICIOUS;
	struct event_with_executable *event;
	struct event_with_texts *with_arguments;

	if (!stream)
		return 0;
	if (arguments) {
		with_arguments = reserve(PROBE_PROCESS, EVENT_EXEC, serious, sizeof(*with_arguments));
		if (!with_arguments)
			return 0;
		see_arguments(with_arguments);
		event = (void *)with_arguments;
	} else {
		event = reserve(PROBE_PROCESS, EVENT_EXEC, serious, sizeof(*event));
		if (!event)
			return 0;
	}
	see_current(&event->event, has_current_btf());
	event->event.class = class;
	see_executable(event, has_current_btf());
	/* asked again, so that the verifier need not go both ways in between */
	serious = ((volatile struct event *)&event->event)->class == CLASS_SUSPICIOUS;
	deliver(event, serious, arguments ? sizeof(*with_arguments) : sizeof(*event));
	return 0;
}

__noinline int report_exit(__u32 class)
{
	struct event *event;

	if (!stream || !detailed)
		return 0;
	event = reserve(PROBE_PROCESS, EVENT_EXIT, false, sizeof(*event));
	if (!event)
		return 0;
	see_current(event, has_current_btf());
	event->class = class;
	deliver(event, false, sizeof(*event));
	return 0;
}

/*
 * Go fills the table with what is older than the exporter. A child that it may
 * see before its fork is seen here must be entered where both look.
 */
volatile bool filling = true;

/* Enters a thread group that is not in the table yet; true if it was. */
static __always_inline bool enter(__u32 tgid, struct process *process)
{
	struct process_slot *slot = slot_of(tgid);
	int err;

	if (holds(slot, tgid))
		return true;
	err = update_map(&processes, &tgid, process, BPF_NOEXIST);
	if (!err)
		add(&process_active_count, process->class, 1);
	else if (err != -EEXIST_ERRNO)
		add(&map_evictions, TABLE_PROCESSES, 1);
	return err == -EEXIST_ERRNO;
}

/* Enters a new thread group. */
static __always_inline void enter_child(__u32 tgid, struct process *process)
{
	if (!filling && take_slot(tgid, process))
		add(&process_active_count, process->class, 1);
	else
		enter(tgid, process);
}

static __always_inline void see_credentials(struct process *process, struct task_struct *task, const bool btf)
{
	const struct cred *cred = LOAD(btf, task, cred);

	process->seen_euid = LOAD(btf, cred, euid.val);
	process->seen_caps = capabilities(&cred->cap_effective, btf);
	process->apart = 0;
}

/* Looks at the cgroup of the current task, if it is another than last time. */
static __always_inline void see_cgroup(struct process *process)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();

	if (process->cgroup_id == cgroup_id)
		return;
	process->cgroup_id = cgroup_id;
	process->contained = is_in_container_cgroup(bpf_get_current_task());
}

/* Looks at the scripts of an exec that is about to happen. */
static __always_inline int prepare(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u8 suspicious;

	if (!in_scope())
		return 0;
	suspicious = script_is_suspicious(bpf_get_current_task());
	bpf_map_update_elem(&script_verdicts, &tgid, &suspicious, BPF_ANY);
	return 0;
}

/* The verdict of the look before; without one, the second best: a look now. */
static __always_inline bool is_script_suspicious(__u32 tgid)
{
	__u8 *verdict = bpf_map_lookup_elem(&script_verdicts, &tgid);
	bool suspicious;

	if (!verdict)
		return script_is_suspicious(bpf_get_current_task());
	suspicious = *verdict;
	bpf_map_delete_elem(&script_verdicts, &tgid);
	return suspicious;
}

/*
 * Whether the current thread's group runs in a container, as its cgroup says.
 * Global, as become(), so that the verifier goes through it once and not for
 * each part of the process table.
 */
__noinline int is_contained(__u32 tgid)
{
	struct process *known = process_of(tgid), new = {};

	if (known) {
		see_cgroup(known);
		return known->contained;
	}
	see_cgroup(&new);
	return new.contained;
}

/* Counts an exec of the current thread, whose group has a class by it. */
__noinline int become(__u32 tgid, __u32 class)
{
	struct process *known = process_of(tgid), new = { .class = class };

	if (!known) {
		see_cgroup(&new);
		see_credentials(&new, (void *)bpf_get_current_task(), false);
		if (enter(tgid, &new))
			known = process_of(tgid);
	}
	add(&process_exec_total, class, 1);
	if (known && known->class != class) {
		add(&process_active_count, known->class, -1);
		add(&process_active_count, class, 1);
		known->class = class;
	}
	return 0;
}

/* One successful exec. The task runs its new image; it is alone in its group. */
static __always_inline int exec(struct task_struct *task, bool script, const bool btf)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct file *file = executable(task, btf);
	enum process_class class;

	if (!in_scope() || !file)
		return 0;
	class = classify(task, file, is_contained(tgid), script && is_script_suspicious(tgid), btf);
	become(tgid, class);
	report_exec(class);
	return 0;
}

/*
 * A new thread group. The child has not run yet. It has its parent's class,
 * except that a new pid namespace makes a container of it.
 */
static __always_inline int fork(struct task_struct *parent, struct task_struct *child, const bool btf)
{
	__u32 tgid = LOAD(btf, child, tgid), parent_tgid = LOAD(btf, parent, tgid);
	struct process *from, new = {};

	if (!in_scope() || LOAD(btf, child, pid) != tgid)
		return 0;
	from = process_of(parent_tgid);
	if (from) {
		new = *from;
	} else {
		see_cgroup(&new);
		new.class = classify_running(bpf_get_current_task(), new.contained);
	}
	see_credentials(&new, child, btf);
	if (new.class != CLASS_SUSPICIOUS && pid_namespace_level(child, btf) > 0)
		new.class = CLASS_CONTAINER;
	enter_child(tgid, &new);
	return 0;
}

/*
 * The last thread of a group is gone. Counted by whoever removes it from the
 * table. A group that a full table never held is counted if this thread is
 * known to be the last (last_known): its class is worked out again.
 */
static __always_inline int exit(bool last_known)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process gone = {};
	enum taken_out taken;

	if (!in_scope())
		return 0;
	taken = take_out(tgid, &gone);
	if (taken == BY_ANOTHER)
		return 0;
	if (taken == BY_US) {
		add(&process_active_count, gone.class, -1);
	} else if (last_known) {
		see_cgroup(&gone);
		gone.class = classify_running(bpf_get_current_task(), gone.contained);
	} else {
		return 0;
	}
	add(&process_exit_total, gone.class, 1);
	report_exit(gone.class);
	return 0;
}

static __always_inline bool is_last_thread(struct task_struct *task, const bool btf)
{
	struct signal_struct *signal = LOAD(btf, task, signal);

	return LOAD(btf, signal, live.counter) == 0;
}

#endif
