/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every fact that differs between kernel versions. Each entry is headed by
 * the release that changed it; the check is made when the program is loaded.
 */
#ifndef COMPAT_H
#define COMPAT_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/*
 * Reads a field through a pointer that the verifier knows (btf) or through a
 * bare address. Direct loads cost half of a probe read each, and the exec
 * path has some thirty.
 */
#define LOAD(btf, ptr, field) ((btf) ? (ptr)->field : BPF_CORE_READ(ptr, field))

/*
 * A pointer that the verifier knows as a bare address, as global functions
 * take it: read back from the stack, where its type is lost.
 */
static __always_inline __u64 address(const void *pointer)
{
	const void *spilled = pointer;
	__u64 bare = 0;

	bpf_probe_read_kernel(&bare, sizeof(bare), &spilled);
	return bare;
}

/*
 * 6.7: struct file's f_task_work; 5.19: f_rcuhead; before: f_u.fu_rcuhead.
 * The callback by which the last fput() defers the release of a file.
 */
struct file___v5_19 {
	struct callback_head f_rcuhead;
} __attribute__((preserve_access_index));

struct file___v5_4 {
	union {
		struct callback_head fu_rcuhead;
	} f_u;
} __attribute__((preserve_access_index));

static __always_inline struct file *file_of_task_work(struct callback_head *work)
{
	__u64 offset;

	if (bpf_core_field_exists(struct file, f_task_work))
		offset = bpf_core_field_offset(struct file, f_task_work);
	else if (bpf_core_field_exists(struct file___v5_19, f_rcuhead))
		offset = bpf_core_field_offset(struct file___v5_19, f_rcuhead);
	else
		offset = bpf_core_field_offset(struct file___v5_4, f_u.fu_rcuhead);
	return (struct file *)((__u64)work - offset);
}

/* 6.15: kernfs_node.parent became __parent. */
struct kernfs_node___v6_15 {
	struct kernfs_node *__parent;
} __attribute__((preserve_access_index));

static __always_inline struct kernfs_node *kernfs_parent_of(struct kernfs_node *kn)
{
	struct kernfs_node___v6_15 *new = (void *)kn;

	if (bpf_core_field_exists(new->__parent))
		return BPF_CORE_READ(new, __parent);
	return BPF_CORE_READ(kn, parent);
}

/* 6.13: struct cred's capabilities became one u64; before, two u32. */
static __always_inline __u64 capabilities(const kernel_cap_t *set)
{
	__u64 caps = 0;

	bpf_probe_read_kernel(&caps, sizeof(caps), set);
	return caps;
}

/*
 * A 32-bit address space: TASK_SIZE is below 4 GiB on x86, at most 4 GiB on
 * arm64. The thread-info bits that say the same have moved between releases.
 */
#define TASK_SIZE_32_MAX 0x100000000ULL

/*
 * A call that entered through the 32-bit entry. x86: TS_COMPAT in the thread
 * info, which int $0x80 of a 64-bit program sets too. arm64: the saved
 * processor state.
 */
static __always_inline bool is_compat_call(struct task_struct *task, struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	const __u32 ts_compat = 0x2;

	return BPF_CORE_READ(task, thread_info.status) & ts_compat;
#elif defined(__TARGET_ARCH_arm64)
	const __u64 psr_mode32 = 0x10;
	struct user_pt_regs *user = (void *)regs;

	return BPF_CORE_READ(user, pstate) & psr_mode32;
#endif
}

#endif
