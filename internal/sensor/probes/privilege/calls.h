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
#include "threads.h"

enum { CLONE_NEWUSER_FLAG = 0x10000000, NO_ID_16 = 0xffff };

COUNTER(privilege_escalation_total, PRIVILEGE_COUNT *RESULT_COUNT);
COUNTER(privilege_gained_total, GAIN_COUNT);

/*
 * First arguments of calls that threads are in, by tid, for rungs that cannot
 * read them at the exit. These calls do not sleep, except where they read
 * arguments from memory that a process keeps from being read; so it is as
 * large as such a process would have to be hostile.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} arguments SEC(".maps");

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

/* The current thread enters a call whose argument its exit needs. */
static __always_inline int remember(__u32 argument)
{
	__u32 tid = bpf_get_current_pid_tgid();

	if (in_scope() && bpf_map_update_elem(&arguments, &tid, &argument, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
	return 0;
}

static __always_inline void forget(void)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&arguments, &tid);
}

static __always_inline bool gained(const struct last_seen *old, const struct last_seen *new)
{
	return (!new->euid && old->euid) || (new->effective & ~old->effective);
}

/*
 * Compares what a thread has with what was last seen of it. What nobody saw it
 * get is counted once for a group: threads that end together find the same, so
 * one of them claims it, and raises what the group is known to have. Global for
 * the verifier's sake.
 */
__noinline int compare_seen(__u32 tid, __u32 euid, __u64 effective)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, claim = tgid | 1U << 31, argument = 0;
	struct last_seen old = {}, new = { .euid = euid, .effective = effective };
	struct process *process = process_of(tgid);

	if (!last_seen_of(tid, process, &old) || !gained(&old, &new))
		return 0;
	if (bpf_map_update_elem(&arguments, &claim, &argument, BPF_NOEXIST))
		return 0;
	if (last_seen_of(tid, process, &old) && gained(&old, &new)) {
		raise(process, &new);
		count_gain(GAIN_OTHER, old.euid, new.euid, old.effective, new.effective, 0);
	}
	bpf_map_delete_elem(&arguments, &claim);
	return 0;
}

static __always_inline void compare(__u32 tid, const struct cred *cred, const bool btf)
{
	struct last_seen new = seen_in(cred, btf);

	if (in_initial_namespace(cred, btf))
		compare_seen(tid, new.euid, new.effective);
}

/*
 * The current thread returns from a call that can change its effective uid or
 * capabilities. No hook at the entry: that would cost every call on the host.
 */
static __always_inline int leave(enum privilege_call call, enum privilege_gain how, bool failed)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	struct last_seen new = seen_in(cred, false), old = new;
	__u64 id = bpf_get_current_pid_tgid();

	if (!in_scope())
		return 0;
	last_seen_of(id, process_of(id >> 32), &old);
	count_call(call, failed, old.euid, new.euid, 0);
	if (failed)
		return 0;
	if (gained(&old, &new) && in_initial_namespace(cred, false))
		count_gain(how, old.euid, new.euid, old.effective, new.effective, 0);
	see(new.euid, new.effective, is_alone(task, false));
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
static __always_inline int leave_fs_user(__u32 id, long ret)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);

	if (id == NO_ID)
		return 0;
	return leave(PRIVILEGE_SETUID, GAIN_SET_ID,
		     ret < 0 || kernel_uid(BPF_CORE_READ(cred, user_ns), id) != BPF_CORE_READ(cred, fsuid.val));
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

/* The first argument as remembered at the entry. */
static __always_inline __u32 remembered_argument(void)
{
	__u32 tid = bpf_get_current_pid_tgid(), *argument = bpf_map_lookup_elem(&arguments, &tid), value = NO_ID;

	if (argument) {
		value = *argument;
		forget();
	}
	return value;
}

/*
 * The first argument of the call that the current thread returns from: from
 * its saved registers since 5.15, before that from the call's entry.
 */
static __always_inline __u32 first_argument(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return PT_REGS_PARM1_CORE_SYSCALL((struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	return remembered_argument();
}

/* A 16-bit id as the kernel widens it: low2highuid(). */
static __always_inline __u32 wide_id(__u32 id)
{
	id &= NO_ID_16;
	return id == NO_ID_16 ? NO_ID : id;
}

#endif
