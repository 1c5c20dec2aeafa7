/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a thread: what its execs, forks and its exit do to the counters
 * and to what was last seen of it, whichever hook saw them.
 */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#include "abi.h"
#include "calls.h"
#include "compat.h"
#include "credentials.h"
#include "exec.h"
#include "processes.h"
#include "scope.h"
#include "threads.h"

enum { PF_KTHREAD_BIT = 0x00200000 };

/*
 * An exec whose credentials are decided. old_cred is NULL where it is gone;
 * old_tid is the thread's id before the exec gave it its leader's.
 */
static __always_inline int exec(struct linux_binprm *bprm, struct file *file, const struct cred *old_cred,
				const struct cred *new_cred, __u32 old_tid, const bool btf)
{
	const bool direct = btf && has_current_btf();
	struct credentials old, new;
	struct exec_verdict verdict = {};
	__u64 image;

	if (!in_scope() || !file)
		return 0;
	image = ADDRESS(btf, file);
	read_credentials(&new, new_cred, btf);
	if (old_cred) {
		read_credentials(&old, old_cred, btf);
		compare(old_tid, old_cred, btf);
	} else {
		assume_ordinary(&old, &new);
	}
	judge_bits(&verdict, file, &old, &new, btf);
	verdict.capabilities = judge_capabilities(bprm, new_cred, verdict.bits, &old, &new, btf);
	if (verdict.bits != UNTOUCHED)
		count_call(PRIVILEGE_SUID_EXEC, verdict.bits == REFUSED, verdict.old_id, verdict.new_id, image);
	if (verdict.capabilities != UNTOUCHED)
		count_call(PRIVILEGE_FILECAP_EXEC, verdict.capabilities == REFUSED, old.euid, new.euid, image);
	if ((verdict.bits == HONOURED || verdict.capabilities == HONOURED) && in_initial_namespace(new_cred, btf)) {
		if (verdict.bits == HONOURED && !new.euid && old.euid)
			count_gain(GAIN_SUID_EXEC, old.euid, new.euid, old.effective, new.effective, image);
		else if (verdict.capabilities == HONOURED && (new.effective & ~old.effective))
			count_gain(GAIN_FILECAP_EXEC, old.euid, new.euid, old.effective, new.effective, image);
	}
	/* already now: an exec that dies later leaves these */
	if (process_of(bpf_get_current_pid_tgid() >> 32))
		see(new.euid, new.effective, is_alone(current_task(direct), direct));
	return 0;
}

/* The exec is done, the thread alone and under its leader's id. */
static __always_inline int see_after_exec(struct task_struct *task, __u32 old_tid, const bool btf)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct last_seen seen = seen_in(LOAD(btf, task, cred), btf);
	struct process *process;

	if (!in_scope())
		return 0;
	process = process_of(tgid);
	forget_thread(process, old_tid);
	if (process)
		see(seen.euid, seen.effective, is_alone(task, btf));
	else
		forget_thread(process, tgid); /* the process probe enters it, if it can */
	return 0;
}

static __always_inline int fork(struct task_struct *parent, struct task_struct *child, const bool btf)
{
	const struct cred *from = LOAD(btf, parent, cred), *to = LOAD(btf, child, cred);
	__u32 euid, tgid = LOAD(btf, child, tgid), tid = LOAD(btf, child, pid);

	if (!in_scope())
		return 0;
	if (tid != tgid)
		inherit(process_of(tgid), LOAD(btf, parent, pid), tid);
	if (LOAD(btf, from, user_ns) == LOAD(btf, to, user_ns))
		return 0;
	euid = LOAD(btf, to, euid.val);
	count_gain(GAIN_USERNS, euid, euid, capabilities(&from->cap_effective, btf),
		   capabilities(&to->cap_effective, btf), 0);
	return 0;
}

/* real_cred, not cred: what the kernel borrows for a moment is not the task's. */
static __always_inline int exit(struct task_struct *task, const bool btf)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (!in_scope() || (LOAD(btf, task, flags) & PF_KTHREAD_BIT))
		return 0;
	compare(id, LOAD(btf, task, real_cred), btf);
	forget_thread(process_of(id >> 32), id);
	return 0;
}

#endif
