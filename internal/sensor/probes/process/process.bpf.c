//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Process execution: the programs that see forks, execs and exits. What they
 * make of them is in lifecycle.h.
 */
#include "vmlinux.h"
#include "abi.h"
#include "classify.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include "lifecycle.h"
#include "processes.h"
#include "scope.h"
#include "threads.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { CLONE_THREAD_FLAG = 0x10000, ELFCLASS32_BYTE = 1 };

/* Wakes the exporter when the first 32-bit image is executed. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} notices SEC(".maps");

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
	return exec(UNTRUSTED(struct task_struct, task), bprm->interp != bprm->filename, true);
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
	return fork(parent, UNTRUSTED(struct task_struct, child), true);
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
	return is_last_thread(UNTRUSTED(struct task_struct, task), true) ? exit(false) : 0;
}

static __always_inline bool is_script(const struct linux_binprm *bprm)
{
	return BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename);
}

static __always_inline int executed(struct task_struct *task, const struct linux_binprm *bprm)
{
	char image[8];

	BPF_CORE_READ_INTO(&image, bprm, buf);
	look_at_image(image);
	return exec(task, is_script(bprm), false);
}

/*
 * The same hooks as raw tracepoints, 4.17, for kernels that refuse programs
 * of type tracing. Twice the price: every field is a probe read.
 */
SEC("raw_tracepoint/sched_process_exec")
int on_raw_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	return executed((void *)ctx->args[0], (void *)ctx->args[2]);
}

SEC("raw_tracepoint/sched_prepare_exec")
int on_raw_sched_prepare_exec(struct bpf_raw_tracepoint_args *ctx)
{
	return is_script((void *)ctx->args[1]) ? prepare() : 0;
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
 * Kprobes, for kernels that preempt programs: these run with preemption off, so
 * they run for every process. All are functions that other files of the kernel
 * call, once for each, in all releases: wake_up_new_task(), 2.6.
 */
SEC("kprobe/wake_up_new_task")
int BPF_KPROBE(on_kprobe_wake_up_new_task, struct task_struct *child)
{
	return fork((void *)bpf_get_current_task(), child, false);
}

/* finalize_exec(), 4.18: the last that each binary format calls. It cannot fail any more. */
SEC("kprobe/finalize_exec")
int BPF_KPROBE(on_kprobe_finalize_exec, struct linux_binprm *bprm)
{
	return executed((void *)bpf_get_current_task(), bprm);
}

/*
 * taskstats_exit(), 2.6.18: says whether this thread is the last, and the image
 * is still there. CONFIG_TASKSTATS, which distributions have.
 */
SEC("kprobe/taskstats_exit")
int BPF_KPROBE(on_kprobe_taskstats_exit, struct task_struct *task, int group_dead)
{
	return group_dead ? exit(true) : 0;
}

/*
 * security_bprm_creds_from_file(), 5.9: where sched_prepare_exec is. An exec
 * that is refused right after leaves its verdict to be overwritten by the next.
 */
SEC("kprobe/security_bprm_creds_from_file")
int BPF_KPROBE(on_kprobe_security_bprm_creds_from_file, struct linux_binprm *bprm)
{
	return is_script(bprm) ? prepare() : 0;
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
	from = process_of(parent_tgid);
	if (from) {
		new = *from;
	} else {
		see_cgroup(&new);
		new.class = classify_running(bpf_get_current_task(), new.contained);
	}
	see_credentials(&new, task, false);
	if (new.class != CLASS_SUSPICIOUS && (ctx->clone_flags & clone_newpid))
		new.class = CLASS_CONTAINER;
	enter_child(tgid, &new);
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

	if (differs && is_alone(task, true))
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

	if (!task)
		return 0;
	task = UNTRUSTED(struct task_struct, task);
	if (is_last_thread(task, true))
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
	known = process_of(tgid);
	if (known)
		see_older(task, known);
	if (entered && is_last_thread(task, true) && take_out(tgid, &new) == BY_US)
		add(&process_active_count, new.class, -1);
	return 0;
}

struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
void bpf_task_release(struct task_struct *task) __ksym __weak;

/* Takes a thread group out if it is over. */
static __always_inline void sweep_process(__u32 tgid)
{
	struct task_struct *task = bpf_task_from_pid(tgid);
	struct process gone = {};
	bool over = true;

	if (task) {
		over = is_last_thread(UNTRUSTED(struct task_struct, task), true);
		bpf_task_release(task);
	}
	if (over && take_out(tgid, &gone) == BY_US)
		add(&process_active_count, gone.class, -1);
}

static long walk_process(struct bpf_map *map, const __u32 *tgid, const struct process *process, void *none)
{
	sweep_process(*tgid);
	return 0;
}

static long walk_slot(struct bpf_map *map, const __u32 *index, const struct process_slot *slot, void *none)
{
	if (slot->tgid)
		sweep_process(slot->tgid);
	return 0;
}

/*
 * iter/bpf_map, with bpf_for_each_map_elem(), 5.13, and bpf_task_from_pid(),
 * 6.2: takes out the processes whose end the recursion guard kept from being
 * seen. Without this the gauge would drift. Runs after the last map, since of
 * the maps nothing is wanted.
 */
SEC("iter/bpf_map")
int walk_processes(struct bpf_iter__bpf_map *ctx)
{
	if (ctx->map)
		return 0;
	bpf_for_each_map_elem(&processes, walk_process, NULL, 0);
	bpf_for_each_map_elem(&process_slots, walk_slot, NULL, 0);
	return 0;
}
