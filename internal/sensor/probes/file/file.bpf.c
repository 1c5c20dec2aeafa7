//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Access to watched files: opens here, changes that open nothing in
 * change_hooks.h.
 */
#include "vmlinux.h"
#include "abi.h"
#include "calls.h"
#include "change_hooks.h"
#include "changes.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include "scope.h"
#include "watch.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	FMODE_WRITE_BIT = 0x2,
	FMODE_EXEC_BIT = 0x20,
	FMODE_PATH_BIT = 0x4000,
	FMODE_CREATED_BIT = 0x100000,
	O_TRUNC_BIT = 01000,
};

COUNTER(file_access_total, SEVERITY_COUNT *OPERATION_COUNT);

/*
 * The file's path: a dentry and its mount, 0 if the hook has none; and, if the
 * file had it before the call, a name, then the dentry is its directory's.
 */
static __always_inline void see_file(struct event_with_texts *event, __u64 dentry, __u64 mount, __u64 name)
{
	__u16 *length = &event->event.lengths[1];
	struct mount *shows = (void *)mount;

	if (!dentry) {
		cut(&event->event, 1);
		return;
	}
	if (!shows)
		shows = mount_for((void *)dentry);
	if (name && !write_component(event->second, length, (void *)name))
		cut(&event->event, 1);
	if (!write_rest(event->second, length, (void *)dentry, shows) || !shows)
		cut(&event->event, 1);
}

static __always_inline bool is_serious(const volatile struct event *event)
{
	return event->what == SEVERITY_CRITICAL && event->how == OPERATION_WRITE;
}

/* The verifier goes through it once, not for each hook. */
__noinline int report_access(__u32 access, __u64 dentry, __u64 mount, __u64 name)
{
	__u32 severity = access >> 8, operation = access & 0xff;
	bool serious = severity == SEVERITY_CRITICAL && operation == OPERATION_WRITE;
	struct event_with_texts *event;

	if (!stream) /* before 6.8 it is checked although nobody calls it */
		return 0;
	event = reserve(PROBE_FILE, EVENT_FILE, serious, sizeof(*event));
	if (!event)
		return 0;
	event->event.what = severity;
	event->event.how = operation;
	see_current(&event->event, has_current_btf());
	see_class(&event->event);
	see_executable((void *)event, has_current_btf());
	see_file(event, dentry, mount, name);
	/* asked again, so that the verifier need not go both ways in between */
	deliver(event, is_serious(&event->event), sizeof(*event));
	return 0;
}

__noinline int count_access(__u64 match, __u32 operation, __u64 dentry, __u64 mount, __u64 name)
{
	__u32 severity = severity_of(match, operation & 1);

	if (severity >= SEVERITY_COUNT)
		return 0;
	add(&file_access_total, severity * OPERATION_COUNT + (operation & 1), 1);
	report_access(severity << 8 | operation, dentry, mount, name);
	return 0;
}

/* One successful open that passed the quick check. */
__noinline int opened(__u64 address, bool truncated)
{
	struct file *file = (void *)address;
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u32 mode = BPF_CORE_READ(file, f_mode);
	__u64 mount, dentry, match;

	if (mode & FMODE_PATH_BIT)
		return 0;
	mount = (__u64)mount_of(BPF_CORE_READ(file, f_path.mnt), false);
	dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	match = match_file((__u64)inode, dentry, mount);
	if (!match)
		return 0;
	count_access(match, (mode & FMODE_WRITE_BIT) || truncated ? OPERATION_WRITE : OPERATION_READ, dentry, mount, 0);
	return 0;
}

/*
 * A call that opens has returned fd. O_TRUNC is no longer in the file's flags:
 * what shows it is the change of the inode during this call, unless the call
 * made the file.
 */
static __always_inline int opened_descriptor(__u64 owner, long fd, const bool btf)
{
	struct task_struct *task = btf ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
	struct files_struct *files;
	struct fdtable *table;
	struct dentry *dentry;
	struct inode *inode;
	struct file **slots, *file;
	__u64 bare = 0;
	bool truncated;

	if (!in_scope())
		return 0;
	if (fd < 0) {
		forget(owner);
		return 0;
	}
	files = LOAD(btf, task, files);
	if (!files)
		return 0;
	table = LOAD(btf, files, fdt);
	slots = LOAD(btf, table, fd);
	bpf_probe_read_kernel(&bare, sizeof(bare), slots + fd);
	if (!bare)
		return 0;
	file = CAST(btf, struct file, bare);
	inode = LOAD(btf, file, f_inode);
	dentry = LOAD(btf, file, f_path.dentry);
	if (!worth_a_look(inode, dentry, btf))
		return 0;
	truncated = was_truncated(owner, (__u64)BPF_CORE_READ((struct file *)bare, f_inode)) &&
		    !(LOAD(btf, file, f_mode) & FMODE_CREATED_BIT);
	return opened(bare, truncated);
}

/*
 * tracepoint/syscalls/sys_exit_open and its kin, 4.7 (cast: 6.2). The
 * descriptor leads to the file, so nothing is read from user memory. Only
 * these calls pay. Misses: calls through the 32-bit entry (see
 * on_compat_sys_exit), and a descriptor that another thread closes or
 * replaces before the call returns.
 */
SEC("tracepoint/syscalls/sys_exit_openat")
int on_sys_exit_open(struct trace_event_raw_sys_exit *ctx)
{
	return opened_descriptor(current_thread(), ctx->ret, true);
}

SEC("tracepoint/syscalls/sys_exit_openat")
int on_slow_sys_exit_open(struct trace_event_raw_sys_exit *ctx)
{
	return opened_descriptor(current_thread(), ctx->ret, false);
}

/*
 * tp_btf/io_uring_complete, 5.5; the result moved into the entry in 6.10. An
 * open by a ring returns no system call of its own. Misses: opens into the
 * ring's own table (no descriptor), and requests that post no completion.
 */
static __always_inline int ring_completed(struct io_kiocb *request, long result)
{
	enum call call = ring_call(BPF_CORE_READ(request, opcode));

	if (call == CALL_OPEN) {
		opened_descriptor((__u64)request, result, false);
		forget((__u64)request);
	} else if (call != CALL_NONE) {
		end_change((__u64)request, call, result);
	}
	return 0;
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(on_io_uring_complete, struct io_ring_ctx *ring, void *request, struct io_uring_cqe *entry)
{
	return ring_completed(request, BPF_CORE_READ(entry, res));
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(on_io_uring_complete_v5_19, void *ring, void *request, __u64 user_data, int result)
{
	return ring_completed(request, result);
}

/*
 * tp_btf/sys_exit, 5.5, on calls through the 32-bit entry only, for which
 * classic syscall tracepoints never fire. Attached when the first 32-bit image
 * is executed: it costs every system call on the host some 30 ns.
 */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_compat_sys_exit, struct pt_regs *regs, long result)
{
	enum call call;

	if (!is_compat_call(regs))
		return 0;
	call = compat_call(syscall_number(regs));
	if (call == CALL_OPEN)
		return opened_descriptor(current_thread(), (int)result, false);
	if (call != CALL_NONE)
		return end_change(current_thread(), call, (int)result);
	return 0;
}

/* What the better rungs share: the file is at hand, and so are its flags. */
static __always_inline int file_opened(struct file *file, int result, const bool btf)
{
	__u32 flags = BPF_CORE_READ(file, f_flags);

	if (result || !in_scope() || (flags & FMODE_EXEC_BIT) ||
	    !worth_a_look(BPF_CORE_READ(file, f_inode), BPF_CORE_READ(file, f_path.dentry), false))
		return 0;
	return opened(ADDRESS(btf, file), flags & O_TRUNC_BIT);
}

/*
 * fexit/security_file_open, 5.5. Every way to open passes here, io_uring and
 * 32-bit included, with O_TRUNC still in the flags; an image that is executed
 * passes too and is left out. Misses nothing; counts an open that the file
 * system itself refuses afterwards.
 */
SEC("fexit/security_file_open")
int BPF_PROG(on_security_file_open, struct file *file, int result)
{
	return file_opened(file, result, true);
}

/* kprobe and kretprobe on the same: the file is remembered by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PENDING_MAX);
	__type(key, __u32);
	__type(value, __u64);
} pending_opens SEC(".maps");

SEC("kprobe/security_file_open")
int BPF_KPROBE(on_kprobe_security_file_open, struct file *file)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 bare = (__u64)file;

	if (bpf_map_update_elem(&pending_opens, &tid, &bare, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
	return 0;
}

SEC("kretprobe/security_file_open")
int BPF_KRETPROBE(on_kretprobe_security_file_open, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *bare = bpf_map_lookup_elem(&pending_opens, &tid);
	struct file *file;

	if (!bare)
		return 0;
	file = (void *)*bare;
	bpf_map_delete_elem(&pending_opens, &tid);
	return file_opened(file, result, false);
}

/*
 * iter/task_file, 5.8. Reports the kernel's identity of what the exporter's
 * own descriptors refer to. It opens watched paths with O_PATH and learns
 * here under which device and inode the kernel knows them: on btrfs and
 * overlay that is not what stat(2) says. The reader is the current task.
 */
SEC("iter/task_file")
int identify(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct identity identity = {};

	if (!task || !file || task->tgid != bpf_get_current_pid_tgid() >> 32 || task->pid != task->tgid)
		return 0;
	if (!(file->f_mode & FMODE_PATH_BIT))
		return 0;
	identity.object = object_of(file->f_inode);
	identity.fd = ctx->fd;
	bpf_seq_write(ctx->meta->seq, &identity, sizeof(identity));
	return 0;
}
