//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Process execution: execs and exits by class, and live thread groups.
 */
#include "vmlinux.h"
#include "abi.h"
#include "classify.h"
#include "compat.h"
#include "counters.h"
#include "credentials.h"
#include "events.h"
#include "processes.h"
#include "scope.h"
#include "threads.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { EEXIST_ERRNO = 17, CLONE_THREAD_FLAG = 0x10000, ELFCLASS32_BYTE = 1 };

COUNTER(process_exec_total, CLASS_COUNT);
COUNTER(process_exit_total, CLASS_COUNT);
/* Up at entry into the table, down at removal: a gauge that cannot drift. */
COUNTER(process_active_count, CLASS_COUNT);

/* Wakes the exporter when the first 32-bit image is executed. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} notices SEC(".maps");

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

static bool compat_noticed;

/* The first 32-bit image: classic syscall tracepoints will not see its calls. */
static __always_inline void notice_compat(void)
{
	__u32 notice = 1;

	if (compat_noticed || !rings)
		return;
	compat_noticed = true;
	bpf_ringbuf_output(&notices, &notice, sizeof(notice), 0);
}

/* Byte 4 of an ELF image tells its class; other images go through one. */
static __always_inline void look_at_image(const char *image)
{
	if (image[4] == ELFCLASS32_BYTE)
		notice_compat();
}

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

/* Enters a thread group that is not in the table yet; true if it was. */
static __always_inline bool enter(__u32 tgid, struct process *process)
{
	int err = update_map(&processes, &tgid, process, BPF_NOEXIST);

	if (!err)
		add(&process_active_count, process->class, 1);
	else if (err != -EEXIST_ERRNO)
		add(&map_evictions, TABLE_PROCESSES, 1);
	return err == -EEXIST_ERRNO;
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

/* One successful exec. The task runs its new image; it is alone in its group. */
static __always_inline int exec(struct task_struct *task, bool script, const bool btf)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct file *file = executable(task, btf);
	struct process *known, new = {};
	enum process_class class;

	if (!in_scope() || !file)
		return 0;
	known = bpf_map_lookup_elem(&processes, &tgid);
	if (known) {
		see_cgroup(known);
		new.contained = known->contained;
	} else {
		see_cgroup(&new);
	}
	class = classify(task, file, new.contained, script && is_script_suspicious(tgid), btf);
	if (!known) {
		new.class = class;
		see_credentials(&new, task, btf);
		if (enter(tgid, &new))
			known = bpf_map_lookup_elem(&processes, &tgid);
	}
	add(&process_exec_total, class, 1);
	if (known && known->class != class) {
		add(&process_active_count, known->class, -1);
		add(&process_active_count, class, 1);
		known->class = class;
	}
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
	from = bpf_map_lookup_elem(&processes, &parent_tgid);
	if (from) {
		new = *from;
	} else {
		see_cgroup(&new);
		new.class = classify_running(bpf_get_current_task(), new.contained);
	}
	see_credentials(&new, child, btf);
	if (new.class != CLASS_SUSPICIOUS && pid_namespace_level(child, btf) > 0)
		new.class = CLASS_CONTAINER;
	enter(tgid, &new);
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
	struct process *process, gone = {};

	if (!in_scope())
		return 0;
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (process) {
		gone = *process;
		if (bpf_map_delete_elem(&processes, &tgid))
			return 0;
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

/*
 * tp_btf/sched_process_exec, 5.5. After the point of no return, so a failed
 * exec never comes here, and every entry (execve, execveat, compat, kernel)
 * does. Not the syscall's exit: an exec from a non-leader thread returns in
 * another thread than it entered.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	look_at_image(bprm->buf);
	return exec(task, bprm->interp != bprm->filename, true);
}

/*
 * tp_btf/sched_prepare_exec, 6.10. The last moment before the old image is
 * given up. Without it a script is looked for when the exec has happened, and
 * then it may be hidden behind files that the exec closed, or the old image
 * may be taken for one.
 */
SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_sched_prepare_exec, struct task_struct *task, struct linux_binprm *bprm)
{
	return bprm->interp != bprm->filename ? prepare() : 0;
}

/* tp_btf/sched_process_fork, 5.5. Before the child first runs. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	return fork(parent, child, true);
}

/*
 * tp_btf/sched_process_exit, 6.16: the second argument says whether this
 * thread is the last, and the image is still there.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_sched_process_exit_group_dead, struct task_struct *task, bool group_dead)
{
	return group_dead ? exit(true) : 0;
}

/*
 * tp_btf/sched_process_exit, 5.5 to 6.15. Two threads may both see themselves
 * as the last; the table's delete lets one of them count. A group evicted
 * from a full table is not counted here.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_sched_process_exit_live, struct task_struct *task)
{
	return is_last_thread(task, true) ? exit(false) : 0;
}

/*
 * The same hooks as raw tracepoints, 4.17, for kernels that refuse programs
 * of type tracing. Twice the price: every field is a probe read.
 */
SEC("raw_tracepoint/sched_process_exec")
int on_raw_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct linux_binprm *bprm = (void *)ctx->args[2];
	char image[8];

	BPF_CORE_READ_INTO(&image, bprm, buf);
	look_at_image(image);
	return exec((void *)ctx->args[0], BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename), false);
}

SEC("raw_tracepoint/sched_prepare_exec")
int on_raw_sched_prepare_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct linux_binprm *bprm = (void *)ctx->args[1];

	return BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename) ? prepare() : 0;
}

SEC("raw_tracepoint/sched_process_fork")
int on_raw_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	return fork((void *)ctx->args[0], (void *)ctx->args[1], false);
}

SEC("raw_tracepoint/sched_process_exit")
int on_raw_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];

	return is_last_thread(task, false) ? exit(false) : 0;
}

/*
 * Classic tracepoints, for kernels before 5.5. They carry no pointers, so the
 * image comes from the current task, every exec looks for a script, and a new
 * thread group is known by clone's flags. Misses: a child put in a new pid
 * namespace by its parent's setns().
 */
SEC("tracepoint/sched/sched_process_exec")
int on_classic_sched_process_exec(void *ctx)
{
	return exec((void *)bpf_get_current_task(), true, false);
}

SEC("tracepoint/task/task_newtask")
int on_classic_task_newtask(struct trace_event_raw_task_newtask *ctx)
{
	const __u64 clone_newpid = 0x20000000;
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tgid = ctx->pid, parent_tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *from, new = {};

	if (!in_scope() || (ctx->clone_flags & CLONE_THREAD_FLAG))
		return 0;
	from = bpf_map_lookup_elem(&processes, &parent_tgid);
	if (from) {
		new = *from;
	} else {
		see_cgroup(&new);
		new.class = classify_running(bpf_get_current_task(), new.contained);
	}
	see_credentials(&new, task, false);
	if (new.class != CLASS_SUSPICIOUS && (ctx->clone_flags & clone_newpid))
		new.class = CLASS_CONTAINER;
	enter(tgid, &new);
	return 0;
}

SEC("tracepoint/sched/sched_process_exit")
int on_classic_sched_process_exit(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return is_last_thread(task, false) ? exit(false) : 0;
}

/*
 * The credentials of a thread older than the exporter, again after its group
 * was entered, which may have been too late for a change in between. What a
 * hook has seen since is newer.
 */
static __always_inline void see_older(struct task_struct *task, struct process *process)
{
	struct last_seen seen = seen_in(task->cred, true);
	__u32 tid = task->pid;

	bool differs = process->seen_euid != seen.euid || process->seen_caps != seen.effective;

	if (differs && is_alone(task))
		see_alone(process, &seen);
	else if (differs)
		bpf_map_update_elem(&threads, &tid, &seen, BPF_NOEXIST);
	if (bpf_map_lookup_elem(&threads, &tid))
		process->apart = 1;
}

/*
 * iter/task, 5.8. Fills the table with what is older than the exporter, after
 * the hooks are attached: whoever is there already is left alone, and whoever
 * died in between is taken out again. Misses: the script of an interpreter
 * that is already running.
 */
SEC("iter/task")
int fill_processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process *known, new = {};
	__u32 tgid;
	bool entered;

	if (!task || is_last_thread(task, true))
		return 0;
	if (!(task->flags & PF_KTHREAD_BIT) && !task->mm)
		return 0; /* a dead leader: another thread speaks for the group */
	if (task->mm && task->mm->task_size <= TASK_SIZE_32_MAX)
		notice_compat();
	new.cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	if (only_cgroup && new.cgroup_id != only_cgroup)
		return 0;
	new.contained = is_in_container_cgroup(address(task));
	new.class = classify_running(address(task), new.contained);
	see_credentials(&new, task, true);
	tgid = task->tgid;
	entered = !enter(tgid, &new);
	known = bpf_map_lookup_elem(&processes, &tgid);
	if (known)
		see_older(task, known);
	if (entered && is_last_thread(task, true) && !bpf_map_delete_elem(&processes, &tgid))
		add(&process_active_count, new.class, -1);
	return 0;
}
