//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Privilege: calls that change ids and capabilities, programs with set-id bits
 * and file capabilities, and what a process gained by them.
 */
#include "vmlinux.h"
#include "abi.h"
#include "calls.h"
#include "compat.h"
#include "counters.h"
#include "credentials.h"
#include "events.h"
#include "lifecycle.h"
#include "processes.h"
#include "scope.h"
#include "threads.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { CLONE_THREAD_FLAG = 0x00010000 };

/*
 * Calls, best rung: fexit on the functions behind all entries of a call,
 * 32-bit included; 5.12 on amd64, 6.4 on arm64. No other call pays. setgroups
 * and capset have no such function, and no hook behind them sees a call that
 * failed early: they keep the system call's own exit, below. Misses: what
 * seccomp refuses.
 */
#define LEAVE_USER leave(PRIVILEGE_SETUID, GAIN_SET_ID, ret < 0)
#define LEAVE_CAPABILITIES leave(PRIVILEGE_CAPSET, GAIN_CAPSET, ret < 0)

SEC("fexit/__sys_setuid")
int BPF_PROG(on_fexit_setuid, uid_t uid, long ret)
{
	return LEAVE_USER;
}

SEC("fexit/__sys_setreuid")
int BPF_PROG(on_fexit_setreuid, uid_t ruid, uid_t euid, long ret)
{
	return LEAVE_USER;
}

SEC("fexit/__sys_setresuid")
int BPF_PROG(on_fexit_setresuid, uid_t ruid, uid_t euid, uid_t suid, long ret)
{
	return LEAVE_USER;
}

SEC("fexit/__sys_setfsuid")
int BPF_PROG(on_fexit_setfsuid, uid_t uid, long ret)
{
	return leave_fs_user(uid, ret);
}

SEC("fexit/__sys_setgid")
int BPF_PROG(on_fexit_setgid, gid_t gid, long ret)
{
	return leave_group(ret < 0);
}

SEC("fexit/__sys_setregid")
int BPF_PROG(on_fexit_setregid, gid_t rgid, gid_t egid, long ret)
{
	return leave_group(ret < 0);
}

SEC("fexit/__sys_setresgid")
int BPF_PROG(on_fexit_setresgid, gid_t rgid, gid_t egid, gid_t sgid, long ret)
{
	return leave_group(ret < 0);
}

SEC("fexit/__sys_setfsgid")
int BPF_PROG(on_fexit_setfsgid, gid_t gid, long ret)
{
	return leave_fs_group(gid, ret);
}

SEC("fexit/ksys_unshare")
int BPF_PROG(on_fexit_unshare, unsigned long flags, int ret)
{
	return leave_unshare(flags, ret < 0);
}

/*
 * setgroups and capset where the exits of system calls may not be watched:
 * fexit on the calls themselves. It sees the 32-bit entries too, but not what
 * seccomp refuses, so it comes second.
 */
FEXIT_CALL(setgroups, CALL_FUNCTION "setgroups", leave_group(ret < 0))
FEXIT_CALL(capset, CALL_FUNCTION "capset", LEAVE_CAPABILITIES)
FEXIT_CALL(compat_setgroups16, COMPAT_CALL_FUNCTION "setgroups16", leave_group(ret < 0))
#if defined(__TARGET_ARCH_x86)
FEXIT_CALL(compat_setgroups, COMPAT_CALL_FUNCTION "setgroups", leave_group(ret < 0))
FEXIT_CALL(compat_capset, COMPAT_CALL_FUNCTION "capset", LEAVE_CAPABILITIES)
#endif

/*
 * Calls, third rung: kprobe and kretprobe on the same functions, for kernels
 * without trampolines. Misses: returns beyond the kretprobe's maxactive, which
 * these calls do not reach.
 */
#define KPROBE(call)                                     \
	SEC("kprobe/__sys_" #call)                       \
	int BPF_KPROBE(on_kprobe_##call, __u32 argument) \
	{                                                \
		return remember(argument);               \
	}
#define KRETPROBE(call, action)                          \
	SEC("kretprobe/__sys_" #call)                    \
	int BPF_KRETPROBE(on_kretprobe_##call, long ret) \
	{                                                \
		return action;                           \
	}

KPROBE(setfsuid)
KPROBE(setfsgid)
KRETPROBE(setuid, LEAVE_USER)
KRETPROBE(setreuid, LEAVE_USER)
KRETPROBE(setresuid, LEAVE_USER)
KRETPROBE(setfsuid, leave_fs_user(remembered_argument(), ret))
KRETPROBE(setgid, leave_group(ret < 0))
KRETPROBE(setregid, leave_group(ret < 0))
KRETPROBE(setresgid, leave_group(ret < 0))
KRETPROBE(setfsgid, leave_fs_group(remembered_argument(), ret))

SEC("kprobe/ksys_unshare")
int BPF_KPROBE(on_kprobe_unshare, unsigned long flags)
{
	return remember(flags);
}

SEC("kretprobe/ksys_unshare")
int BPF_KRETPROBE(on_kretprobe_unshare, int ret)
{
	__u32 flags = remembered_argument();

	return flags == NO_ID ? 0 : leave_unshare(flags, ret < 0);
}

/*
 * Calls, last rung: the classic tracepoints of each system call, 4.7. They
 * cost these calls alone, and every other system call 13 ns once for all.
 * Not the raw sys_exit: that runs for every call on the host. Misses: 32-bit
 * calls, for which the kernel does not fire them (on_compat_sys_exit).
 * The entries are for what first_argument() needs before 5.15.
 */
#define ENTER(call)                                            \
	SEC("tracepoint/syscalls/sys_enter_" #call)            \
	int on_enter_##call(struct syscall_trace_enter *enter) \
	{                                                      \
		return remember(enter->args[0]);               \
	}
#define EXIT(call, action)                                    \
	SEC("tracepoint/syscalls/sys_exit_" #call)            \
	int on_exit_##call(struct syscall_trace_exit *exited) \
	{                                                     \
		long ret = exited->ret;                       \
                                                              \
		return action;                                \
	}

ENTER(setfsuid)
ENTER(setfsgid)
ENTER(unshare)
EXIT(setuid, LEAVE_USER)
EXIT(setreuid, LEAVE_USER)
EXIT(setresuid, LEAVE_USER)
EXIT(setfsuid, leave_fs_user(first_argument(), ret))
EXIT(setgid, leave_group(ret < 0))
EXIT(setregid, leave_group(ret < 0))
EXIT(setresgid, leave_group(ret < 0))
EXIT(setgroups, leave_group(ret < 0))
EXIT(setfsgid, leave_fs_group(first_argument(), ret))
EXIT(capset, LEAVE_CAPABILITIES)

SEC("tracepoint/syscalls/sys_exit_unshare")
int on_exit_unshare(struct syscall_trace_exit *exited)
{
	__u32 flags = first_argument();

	return flags == NO_ID ? 0 : leave_unshare(flags, exited->ret < 0);
}

static __always_inline int left_compat_call(struct pt_regs *regs, long ret)
{
	__u32 argument;

	if (!is_compat_call(regs))
		return 0;
	argument = compat_first_argument(regs);
	switch (syscall_number(regs)) {
	case COMPAT_SETUID16:
	case COMPAT_SETREUID16:
	case COMPAT_SETRESUID16:
	case COMPAT_SETUID:
	case COMPAT_SETREUID:
	case COMPAT_SETRESUID:
		return set_id_seen_in_kernel ? 0 : leave(PRIVILEGE_SETUID, GAIN_SET_ID, ret < 0);
	case COMPAT_SETFSUID16:
		argument = wide_id(argument);
		/* fallthrough */
	case COMPAT_SETFSUID:
		return set_id_seen_in_kernel ? 0 : leave_fs_user(argument, ret);
	case COMPAT_SETGID16:
	case COMPAT_SETREGID16:
	case COMPAT_SETRESGID16:
	case COMPAT_SETGID:
	case COMPAT_SETREGID:
	case COMPAT_SETRESGID:
		return set_id_seen_in_kernel ? 0 : leave_group(ret < 0);
	case COMPAT_SETFSGID16:
		argument = wide_id(argument);
		/* fallthrough */
	case COMPAT_SETFSGID:
		return set_id_seen_in_kernel ? 0 : leave_fs_group(argument, ret);
	case COMPAT_SETGROUPS16:
	case COMPAT_SETGROUPS:
		return leave_group(ret < 0);
	case COMPAT_CAPSET:
		return LEAVE_CAPABILITIES;
	case COMPAT_UNSHARE:
		return set_id_seen_in_kernel ? 0 : leave_unshare(argument, ret < 0);
	}
	return 0;
}

/*
 * tp_btf/sys_exit, 5.5, attached when the first 32-bit image is executed: it
 * costs every system call 26 to 38 ns. Misses: the calls of 32-bit programs
 * older than the exporter until a new one starts.
 */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_compat_sys_exit, struct pt_regs *regs, long ret)
{
	return left_compat_call(regs, ret);
}

/* The same with preemption off, for kernels that preempt the one above. 7.0 */
SEC("tracepoint/raw_syscalls/sys_exit")
int on_classic_compat_sys_exit(struct trace_event_raw_sys_exit *exited)
{
	return left_compat_call(saved_registers(), exited->ret);
}

/*
 * tp_btf/sched_prepare_exec, 6.10: the one place where the old and the new
 * credentials are at hand together, after the kernel has decided and at the
 * point of no return. Misses: file capabilities on a nosuid mount, which the
 * kernel does not even read; those of an exec that fails for want of them;
 * and an exec that dies after this point is counted although it ran nothing.
 */
SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_sched_prepare_exec, struct task_struct *task, struct linux_binprm *bprm)
{
	bprm = UNTRUSTED(struct linux_binprm, bprm);
	task = UNTRUSTED(struct task_struct, task);
	return exec(bprm, file_of_credentials(bprm, true), task->cred, bprm->cred, bpf_get_current_pid_tgid(), true);
}

/* The same as a raw tracepoint, for kernels that refuse programs of type tracing. */
SEC("raw_tracepoint/sched_prepare_exec")
int on_raw_sched_prepare_exec(struct bpf_raw_tracepoint_args *raw)
{
	struct task_struct *task = (void *)raw->args[0];
	struct linux_binprm *bprm = (void *)raw->args[1];

	return exec(bprm, file_of_credentials(bprm, false), BPF_CORE_READ(task, cred), BPF_CORE_READ(bprm, cred),
		    bpf_get_current_pid_tgid(), false);
}

/*
 * tp_btf/sched_process_exec, 5.5, beside sched_prepare_exec: from here on the
 * thread is alone, and what was last seen of it can be lowered.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_sched_process_exec, struct task_struct *task, int old_pid)
{
	return see_after_exec(UNTRUSTED(struct task_struct, task), old_pid, true);
}

SEC("raw_tracepoint/sched_process_exec")
int on_raw_sched_process_exec(struct bpf_raw_tracepoint_args *raw)
{
	return see_after_exec((void *)raw->args[0], raw->args[1], false);
}

/*
 * Ids of threads that are executing something while their group's threads
 * differ, by the address of the task. Least recently used: an exec may fail.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u32);
} executing SEC(".maps");

/*
 * The same by kprobes, for kernels that preempt programs and those before 6.10:
 * security_bprm_committing_creds(), 2.6.29. A thread has its leader's id there
 * already, so security_bprm_creds_from_file(), 5.9, remembers its own.
 */
SEC("kprobe/security_bprm_creds_from_file")
int BPF_KPROBE(on_kprobe_security_bprm_creds_from_file)
{
	__u64 id = bpf_get_current_pid_tgid(), task = bpf_get_current_task();
	__u32 tgid = id >> 32, tid = id;
	struct process *process;

	if (!in_scope() || tid == tgid)
		return 0;
	process = process_of(tgid);
	if (!process || process->apart)
		bpf_map_update_elem(&executing, &task, &tid, BPF_ANY);
	return 0;
}

SEC("kprobe/security_bprm_committing_creds")
int BPF_KPROBE(on_kprobe_security_bprm_committing_creds, struct linux_binprm *bprm)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid(), *known;
	__u64 key = (__u64)task;

	known = bpf_map_lookup_elem(&executing, &key);
	if (known) {
		tid = *known;
		bpf_map_delete_elem(&executing, &key);
	}
	exec(bprm, file_of_credentials(bprm, false), BPF_CORE_READ(task, cred), BPF_CORE_READ(bprm, cred), tid, false);
	if (known)
		bpf_map_delete_elem(&threads, &tid);
	return 0;
}

/*
 * Before 6.10: the exec is over, and the old credentials are guessed from the
 * real ids. Exact for a process whose effective ids are its real ones. One
 * that runs with other ids, or has capabilities, is counted again when it
 * executes a file that would have given it what it has.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_sched_process_exec_after, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	bprm = UNTRUSTED(struct linux_binprm, bprm);
	task = UNTRUSTED(struct task_struct, task);
	exec(bprm, file_of_credentials(bprm, true), NULL, task->cred, 0, true);
	return see_after_exec(task, old_pid, true);
}

SEC("raw_tracepoint/sched_process_exec")
int on_raw_sched_process_exec_after(struct bpf_raw_tracepoint_args *raw)
{
	struct task_struct *task = (void *)raw->args[0];
	struct linux_binprm *bprm = (void *)raw->args[2];

	exec(bprm, file_of_credentials(bprm, false), NULL, BPF_CORE_READ(task, cred), 0, false);
	return see_after_exec(task, raw->args[1], false);
}

/* Before 5.5: no pointers, so the image of the current task; refused file
 * capabilities are not seen. */
SEC("tracepoint/sched/sched_process_exec")
int on_classic_sched_process_exec(struct trace_event_raw_sched_process_exec *executed)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	exec(NULL, BPF_CORE_READ(task, mm, exe_file), NULL, BPF_CORE_READ(task, cred), 0, false);
	return see_after_exec(task, executed->old_pid, false);
}

/*
 * tp_btf/sched_process_fork, 5.5: a child in a user namespace of its own, by
 * clone(2) or clone3(2), whose flags no system call tracepoint shows in full.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	return fork(UNTRUSTED(struct task_struct, parent), UNTRUSTED(struct task_struct, child), true);
}

SEC("raw_tracepoint/sched_process_fork")
int on_raw_sched_process_fork(struct bpf_raw_tracepoint_args *raw)
{
	return fork((void *)raw->args[0], (void *)raw->args[1], false);
}

/* wake_up_new_task(), 2.6, for kernels that preempt programs. */
SEC("kprobe/wake_up_new_task")
int BPF_KPROBE(on_kprobe_wake_up_new_task, struct task_struct *child)
{
	return fork((void *)bpf_get_current_task(), child, false);
}

/* Before 5.5: by clone's flags. */
SEC("tracepoint/task/task_newtask")
int on_classic_task_newtask(struct trace_event_raw_task_newtask *newtask)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tgid = id >> 32;

	if (newtask->clone_flags & CLONE_THREAD_FLAG) {
		inherit(process_of(tgid), id, newtask->pid);
		return 0;
	}
	return leave_unshare(newtask->clone_flags, false);
}

/*
 * tp_btf/sched_process_exit, 5.5: the last look at a thread's credentials. It
 * must run before the process probe's program on the same hook, which takes
 * the group out of the table. Programs run in the order they were attached.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_sched_process_exit, struct task_struct *task)
{
	return exit(UNTRUSTED(struct task_struct, task), true);
}

SEC("raw_tracepoint/sched_process_exit")
int on_raw_sched_process_exit(struct bpf_raw_tracepoint_args *raw)
{
	return exit((void *)raw->args[0], false);
}

/*
 * exit_signals(), 2.6.22: before taskstats_exit(), where the process probe is
 * if it has kprobes. Two kprobes on one function run in no order to rely on.
 */
SEC("kprobe/exit_signals")
int BPF_KPROBE(on_kprobe_exit_signals, struct task_struct *task)
{
	return exit(task, false);
}

SEC("tracepoint/sched/sched_process_exit")
int on_classic_sched_process_exit(void *classic)
{
	return exit((void *)bpf_get_current_task(), false);
}
