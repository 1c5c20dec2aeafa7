/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The calls that change ids and capabilities: what a thread had before, what
 * it has after, and what of that is counted. All rungs share this.
 */
#ifndef CALLS_H
#define CALLS_H

#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "credentials.h"
#include "events.h"
#include "processes.h"
#include "scope.h"

enum { CLONE_NEWUSER_FLAG = 0x10000000, NO_ID_16 = 0xffff };

COUNTER(privilege_escalation_total, PRIVILEGE_COUNT *RESULT_COUNT);
COUNTER(privilege_gained_total, GAIN_COUNT);

/* A thread inside a call: what it had before, and the call's first argument. */
struct before {
	__u64 effective;
	__u32 euid;
	__u32 argument;
};

/*
 * Keyed by tid. These calls do not sleep, except where they read their
 * arguments from memory that a process keeps from being read; so it is as
 * large as such a process would have to be hostile.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct before);
} pending_calls SEC(".maps");

/*
 * The rung in use sees the set*id calls of 32-bit programs too. Set by Go
 * before the programs for those are attached.
 */
volatile bool set_id_seen_in_kernel = false;

static __always_inline void see_caller(struct event_with_executable *event, __u64 image)
{
	see_current(&event->event, has_current_btf());
	see_class(&event->event);
	if (image)
		see_image(event, image);
	else
		see_executable(event, has_current_btf());
}

/* image: the address of the file that is being executed; 0: of what runs already. */
__noinline int report_call(__u32 call, __u32 result, __u32 old, __u32 new, __u64 image)
{
	struct event_with_executable *event;

	if (!stream) /* before 6.8 it is checked although nobody calls it */
		return 0;
	event = reserve(PROBE_PRIVILEGE, EVENT_PRIVILEGE, false, sizeof(*event));
	if (!event)
		return 0;
	event->event.what = call;
	event->event.how = result;
	event->event.old_id = old;
	event->event.new_id = new;
	see_caller(event, image);
	deliver(event, false, sizeof(*event));
	return 0;
}

__noinline int report_gain(__u32 how, __u64 ids, __u64 old_caps, __u64 new_caps, __u64 image)
{
	struct event_with_executable *event;

	if (!stream) /* before 6.8 it is checked although nobody calls it */
		return 0;
	event = reserve(PROBE_PRIVILEGE, EVENT_GAIN, true, sizeof(*event));
	if (!event)
		return 0;
	event->event.how = how;
	event->event.old_id = ids >> 32;
	event->event.new_id = ids;
	event->event.old_caps = old_caps;
	event->event.new_caps = new_caps;
	see_caller(event, image);
	deliver(event, true, sizeof(*event));
	return 0;
}

static __always_inline void count_call(enum privilege_call call, enum result result, __u32 old, __u32 new, __u64 image)
{
	add(&privilege_escalation_total, call * RESULT_COUNT + result, 1);
	report_call(call, result, old, new, image);
}

/* Effective ids and capabilities before and after. */
static __always_inline void count_gain(enum privilege_gain how, __u32 old, __u32 new, __u64 old_caps, __u64 new_caps,
				       __u64 image)
{
	add(&privilege_gained_total, how, 1);
	report_gain(how, (__u64)old << 32 | new, old_caps, new_caps, image);
}

/* The table is short of what a thread group is now: nobody saw it get there. */
static __always_inline bool is_short(const struct process *process, __u32 euid, __u64 effective)
{
	return (!euid && process->seen_euid) || (effective & ~process->seen_caps);
}

/*
 * Compares what a thread has with what was last seen of its group. Threads
 * that end together find the same, so one of them claims it: whoever enters
 * the group among the pending calls, where no tid has the highest bit.
 */
static __always_inline void compare(struct process *process, const struct cred *cred, const bool btf)
{
	__u32 claim = bpf_get_current_pid_tgid() >> 32 | 1U << 31, euid = LOAD(btf, cred, euid.val), seen_euid;
	__u64 effective = capabilities(&cred->cap_effective, btf), seen_caps;
	struct before none = {};

	if (!is_short(process, euid, effective) || !in_initial_namespace(cred, btf))
		return;
	if (bpf_map_update_elem(&pending_calls, &claim, &none, BPF_NOEXIST))
		return;
	if (is_short(process, euid, effective)) {
		seen_euid = process->seen_euid;
		seen_caps = process->seen_caps;
		see(process, euid, effective, false);
		count_gain(GAIN_OTHER, seen_euid, euid, seen_caps, effective, 0);
	}
	bpf_map_delete_elem(&pending_calls, &claim);
}

/* The current thread enters a call. */
static __always_inline int remember(__u32 argument)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	__u32 tid = bpf_get_current_pid_tgid();
	struct before before = { .argument = argument };

	if (!in_scope())
		return 0;
	before.euid = BPF_CORE_READ(cred, euid.val);
	before.effective = capabilities(&cred->cap_effective, false);
	if (bpf_map_update_elem(&pending_calls, &tid, &before, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
	return 0;
}

static __always_inline void forget(void)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&pending_calls, &tid);
}

/*
 * The current thread returns from a call that can change its effective uid or
 * capabilities. Where the call's entry is not hooked, or the table was full,
 * what was last seen of the group stands for what the thread had before.
 */
static __always_inline int leave(enum privilege_call call, enum privilege_gain how, bool failed, bool entered)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	__u32 euid = BPF_CORE_READ(cred, euid.val), old_euid = euid;
	__u64 id = bpf_get_current_pid_tgid(), effective = capabilities(&cred->cap_effective, false),
	      old_effective = effective;
	__u32 tid = id, tgid = id >> 32;
	struct process *process;
	struct before *before;

	if (!in_scope())
		return 0;
	process = bpf_map_lookup_elem(&processes, &tgid);
	before = entered ? bpf_map_lookup_elem(&pending_calls, &tid) : NULL;
	if (before) {
		old_euid = before->euid;
		old_effective = before->effective;
		bpf_map_delete_elem(&pending_calls, &tid);
	} else if (process) {
		old_euid = process->seen_euid;
		old_effective = process->seen_caps;
	}
	count_call(call, failed, old_euid, euid, 0);
	if (failed)
		return 0;
	if (((!euid && old_euid) || (effective & ~old_effective)) && in_initial_namespace(cred, false))
		count_gain(how, old_euid, euid, old_effective, effective, 0);
	if (process)
		see(process, euid, effective, is_alone(task));
	return 0;
}

/* A return from a call on group ids, which give neither root nor capabilities. */
static __always_inline int leave_group(bool failed)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 egid;

	if (!in_scope())
		return 0;
	egid = BPF_CORE_READ(task, cred, egid.val);
	count_call(PRIVILEGE_SETGID, failed, egid, egid, 0);
	return 0;
}

/*
 * setfsuid(2) and setfsgid(2) return the previous id whatever happens, so the
 * id afterwards tells. -1 is no id: that call only asks. A negative return
 * comes from seccomp.
 */
static __always_inline int leave_fs_user(__u32 id, long ret, bool entered)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);

	if (id == NO_ID) {
		forget();
		return 0;
	}
	return leave(PRIVILEGE_SETUID, GAIN_SET_ID,
		     ret < 0 || kernel_uid(BPF_CORE_READ(cred, user_ns), id) != BPF_CORE_READ(cred, fsuid.val),
		     entered);
}

static __always_inline int leave_fs_group(__u32 id, long ret)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);

	if (id == NO_ID)
		return 0;
	return leave_group(ret < 0 || kernel_gid(BPF_CORE_READ(cred, user_ns), id) != BPF_CORE_READ(cred, fsgid.val));
}

/* CLONE_NEWUSER always makes a new user namespace, if the call succeeds. */
static __always_inline int leave_unshare(__u32 flags, bool failed)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 caps;
	__u32 euid;

	if (failed || !(flags & CLONE_NEWUSER_FLAG) || !in_scope())
		return 0;
	euid = BPF_CORE_READ(task, cred, euid.val);
	caps = capabilities(&BPF_CORE_READ(task, cred)->cap_effective, false);
	count_gain(GAIN_USERNS, euid, euid, caps, caps, 0);
	return 0;
}

/*
 * The first argument of the call that the current thread returns from: from
 * its saved registers since 5.15, before that from the call's entry.
 */
static __always_inline __u32 first_argument(void)
{
	__u32 tid = bpf_get_current_pid_tgid(), argument = NO_ID;
	struct before *before;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return PT_REGS_PARM1_CORE_SYSCALL((struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	before = bpf_map_lookup_elem(&pending_calls, &tid);
	if (before)
		argument = before->argument;
	return argument;
}

/* A 16-bit id as the kernel widens it: low2highuid(). */
static __always_inline __u32 wide_id(__u32 id)
{
	id &= NO_ID_16;
	return id == NO_ID_16 ? NO_ID : id;
}

/* The first argument as remembered at the entry, which a kprobe must do. */
static __always_inline __u32 remembered_argument(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct before *before = bpf_map_lookup_elem(&pending_calls, &tid);

	return before ? before->argument : NO_ID;
}

#endif
