/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs that see a change by name begin and end: a rename, a removal, a
 * change of attributes. What they make of it is in changes.h. The ends that
 * changes share with opens, a ring's and the 32-bit entry's, are in file.bpf.c.
 */
#ifndef CHANGE_HOOKS_H
#define CHANGE_HOOKS_H

#include "vmlinux.h"
#include "calls.h"
#include "changes.h"
#include "compat.h"
#include "scope.h"
#include "watch.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum {
	ATTR_MODE_OWNER_BITS = 0x7,
	ATTR_SIZE_BIT = 0x8,
	ATTR_FORCE_BIT = 0x200,
	ATTR_OPEN_BIT = 0x8000,
};

/* An inode's ctime changes. Is it one of the calls that change by name? */
static __always_inline int ctime_changed(struct inode *inode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct hlist_node *node;
	__u64 owner = current_thread();
	struct io_kiocb *request;
	enum call call;
	int number;

	if (task->flags & PF_IO_WORKER_BIT) {
		request = worker_request(task);
		call = request ? ring_call(BPF_CORE_READ(request, opcode)) : CALL_NONE;
		owner = (__u64)request;
	} else if (task->flags & PF_KTHREAD_BIT) {
		return 0;
	} else {
		number = syscall_number(regs);
		call = is_compat_call(regs) ? compat_call(number) : native_call(number);
	}
	if (call == CALL_NONE || !in_scope())
		return 0;
	if (call == CALL_OPEN) {
		node = BPF_CORE_READ(inode, i_dentry.first);
		if (!node || !worth_a_look(inode, alias_of(node), false))
			return 0;
	}
	return begin_change(owner, address(inode));
}

/*
 * tp_btf/ctime_ns_xchg, ctime_xchg_skip, inode_set_ctime_to_ts, 6.13: between
 * them, every change of an inode's ctime on every file system. They stand in
 * for hooks in rename, unlink and setattr where neither trampolines nor
 * kprobes are to be had. Misses: a file system that keeps no ctime, and names
 * that are reached through a mount below their file system's root.
 */
SEC("tp_btf/ctime_ns_xchg")
int BPF_PROG(on_ctime_ns_xchg, struct inode *inode)
{
	return ctime_changed(inode);
}

SEC("tp_btf/ctime_xchg_skip")
int BPF_PROG(on_ctime_xchg_skip, struct inode *inode)
{
	return ctime_changed(inode);
}

SEC("tp_btf/inode_set_ctime_to_ts")
int BPF_PROG(on_inode_set_ctime_to_ts, struct inode *inode)
{
	return ctime_changed(inode);
}

/* The same calls' exits, all of them, where it is certain that they succeeded. */
SEC("tracepoint/syscalls/sys_exit_renameat2")
int on_sys_exit_change(struct trace_event_raw_sys_exit *ctx)
{
	/* perf events have an int there */
	return end_change(current_thread(), native_call((int)ctx->id), ctx->ret);
}

/*
 * A rename or removal begins: both names are still as they were. Overlay file
 * systems nest: the outermost operation ends it.
 */
static __always_inline int names_change(struct dentry *first, struct dentry *second)
{
	__u64 owner = current_thread();
	struct pending *pending;

	if (!in_scope())
		return 0;
	begin_change(owner, (__u64)BPF_CORE_READ(first, d_inode));
	if (second)
		begin_change(owner, (__u64)BPF_CORE_READ(second, d_inode));
	pending = pending_of(owner, false);
	if (pending)
		pending->depth++;
	return 0;
}

static __always_inline int names_changed(enum call call, int result)
{
	struct pending *pending = pending_of(current_thread(), false);

	if (!pending || (pending->depth && --pending->depth))
		return 0;
	return end_change(current_thread(), call, result);
}

/* Mode, owner and size count; times do not, nor what an open or a write does. */
static __always_inline int attributes_change(struct dentry *dentry, struct iattr *attributes)
{
	__u32 valid = BPF_CORE_READ(attributes, ia_valid);

	if ((valid & ATTR_OPEN_BIT) || ((valid & ATTR_FORCE_BIT) && !(valid & ATTR_SIZE_BIT)) ||
	    !(valid & (ATTR_MODE_OWNER_BITS | ATTR_SIZE_BIT)))
		return 0;
	return names_change(dentry, NULL);
}

/*
 * fentry on the security hooks, where the names are still the old ones, and
 * fexit on the operations, where the result is known: 5.5. vfs_rename takes a
 * struct since 5.12, and the others a mount's id map as first argument.
 */
SEC("fentry/security_inode_rename")
int BPF_PROG(on_security_inode_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	     struct dentry *new_dentry)
{
	return names_change((void *)address(old_dentry), (void *)address(new_dentry));
}

SEC("fexit/vfs_rename")
int BPF_PROG(on_vfs_rename, struct renamedata *data, int result)
{
	return names_changed(CALL_RENAME, result);
}

SEC("fexit/vfs_rename")
int BPF_PROG(on_vfs_rename_v5_4, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	     struct dentry *new_dentry, struct inode **delegated, unsigned int flags, int result)
{
	return names_changed(CALL_RENAME, result);
}

SEC("fentry/security_inode_unlink")
int BPF_PROG(on_security_inode_unlink, struct inode *dir, struct dentry *dentry)
{
	return names_change((void *)address(dentry), NULL);
}

SEC("fexit/vfs_unlink")
int BPF_PROG(on_vfs_unlink, void *idmap, struct inode *dir, struct dentry *dentry, struct inode **delegated, int result)
{
	return names_changed(CALL_UNLINK, result);
}

SEC("fexit/vfs_unlink")
int BPF_PROG(on_vfs_unlink_v5_4, struct inode *dir, struct dentry *dentry, struct inode **delegated, int result)
{
	return names_changed(CALL_UNLINK, result);
}

SEC("fentry/notify_change")
int BPF_PROG(on_notify_change, void *idmap, struct dentry *dentry, struct iattr *attributes)
{
	return attributes_change((void *)address(dentry), (void *)address(attributes));
}

SEC("fentry/notify_change")
int BPF_PROG(on_notify_change_v5_4, struct dentry *dentry, struct iattr *attributes)
{
	return attributes_change((void *)address(dentry), (void *)address(attributes));
}

SEC("fexit/notify_change")
int BPF_PROG(on_notify_change_exit, void *idmap, struct dentry *dentry, struct iattr *attributes,
	     struct inode **delegated, int result)
{
	return names_changed(CALL_ATTRIBUTE, result);
}

SEC("fexit/notify_change")
int BPF_PROG(on_notify_change_exit_v5_4, struct dentry *dentry, struct iattr *attributes, struct inode **delegated,
	     int result)
{
	return names_changed(CALL_ATTRIBUTE, result);
}

/* kprobes on the same functions. */
SEC("kprobe/security_inode_rename")
int BPF_KPROBE(on_kprobe_security_inode_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	       struct dentry *new_dentry)
{
	return names_change(old_dentry, new_dentry);
}

SEC("kretprobe/vfs_rename")
int BPF_KRETPROBE(on_kretprobe_vfs_rename, int result)
{
	return names_changed(CALL_RENAME, result);
}

SEC("kprobe/security_inode_unlink")
int BPF_KPROBE(on_kprobe_security_inode_unlink, struct inode *dir, struct dentry *dentry)
{
	return names_change(dentry, NULL);
}

SEC("kretprobe/vfs_unlink")
int BPF_KRETPROBE(on_kretprobe_vfs_unlink, int result)
{
	return names_changed(CALL_UNLINK, result);
}

SEC("kprobe/notify_change")
int BPF_KPROBE(on_kprobe_notify_change, void *idmap, struct dentry *dentry, struct iattr *attributes)
{
	return attributes_change(dentry, attributes);
}

SEC("kprobe/notify_change")
int BPF_KPROBE(on_kprobe_notify_change_v5_4, struct dentry *dentry, struct iattr *attributes)
{
	return attributes_change(dentry, attributes);
}

SEC("kretprobe/notify_change")
int BPF_KRETPROBE(on_kretprobe_notify_change, int result)
{
	return names_changed(CALL_ATTRIBUTE, result);
}

#endif
