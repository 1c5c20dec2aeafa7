/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every fact that differs between kernel versions. Each entry is headed by
 * the release that changed it; the check is made when the program is loaded.
 */
#ifndef COMPAT_H
#define COMPAT_H

#include "vmlinux.h"
#include "abi.h"
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
 * 6.2: lets a bare address be read with direct loads again. Before, the loader
 * makes a move of it, and what reads the address stands on a rung of its own.
 */
extern void *bpf_rdonly_cast(const void *address, __u32 btf_id) __ksym;

/* The kernel has it. Set by Go, which tries it. */
const volatile bool casts = false;

#define CAST(btf, type, address) \
	((btf) ? (type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(type)) : (type *)(address))

/*
 * A pointer that the verifier knows, but does not trust any more. For each
 * pointer that is read through one that it trusts, the verifier of 6.3 and
 * later asks up to four times whether that one is to be trusted too, by a name
 * that it looks for among all types of the kernel: half of its time for all
 * programs of 6.18. No instruction comes of the cast.
 */
#define UNTRUSTED(type, pointer) CAST(true, type, pointer)

/*
 * A pointer as a bare address, as global functions take it, by way of the stack,
 * where its type is lost. It may be a number already: what a string's pointer is
 * to the verifier differs with the release.
 */
static __always_inline __u64 address_by_stack(const void *pointer)
{
	const void *spilled = pointer;
	__u64 bare = 0;

	bpf_probe_read_kernel(&bare, sizeof(bare), &spilled);
	return bare;
}

/*
 * The same of a pointer that every verifier knows, without a call: a difference
 * of two pointers is a number, and a cast makes the second.
 */
static __always_inline __u64 address(const void *pointer)
{
	if (casts)
		return (__u64)pointer - (__u64)bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct list_head));
	return address_by_stack(pointer);
}

#define ADDRESS(btf, pointer) ((btf) ? address(pointer) : (__u64)(pointer))

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

	if (bpf_core_field_exists(struct file, f_task_work)) {
		offset = bpf_core_field_offset(struct file, f_task_work);
		barrier_var(offset);
	} else if (bpf_core_field_exists(struct file___v5_19, f_rcuhead)) {
		offset = bpf_core_field_offset(struct file___v5_19, f_rcuhead);
		barrier_var(offset);
	} else {
		offset = bpf_core_field_offset(struct file___v5_4, f_u.fu_rcuhead);
		barrier_var(offset);
	}
	return (struct file *)((__u64)work - offset);
}

/* 6.15: kernfs_node.parent became __parent. */
struct kernfs_node___v6_15 {
	struct kernfs_node *__parent;
} __attribute__((preserve_access_index));

static __always_inline struct kernfs_node *kernfs_parent_of(struct kernfs_node *kn)
{
	struct kernfs_node *parent = NULL;
	__u64 offset;

	/*
	 * The offset, not the read, is chosen: the compiler would merge two
	 * reads into one with both relocations, of which one must fail.
	 */
	if (bpf_core_field_exists(struct kernfs_node___v6_15, __parent)) {
		offset = bpf_core_field_offset(struct kernfs_node___v6_15, __parent);
		barrier_var(offset);
	} else {
		offset = bpf_core_field_offset(struct kernfs_node, parent);
		barrier_var(offset);
	}
	bpf_probe_read_kernel(&parent, sizeof(parent), (void *)kn + offset);
	return parent;
}

/* 6.3: struct cred's capabilities became one u64; before, two u32. */
static __always_inline __u64 capabilities(const kernel_cap_t *set, const bool btf)
{
	__u64 caps = 0;

	if (btf && bpf_core_field_exists(set->val))
		return set->val;
	bpf_probe_read_kernel(&caps, sizeof(caps), set);
	return caps;
}

/*
 * A 32-bit address space: TASK_SIZE is below 4 GiB on x86, at most 4 GiB on
 * arm64. The thread-info bits that say the same have moved between releases.
 */
#define TASK_SIZE_32_MAX 0x100000000ULL

/* 5.11: the current task as a pointer that the verifier knows. */
static __always_inline bool has_current_btf(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

/*
 * A call that entered through the 32-bit entry. x86: TS_COMPAT in the thread
 * info, which int $0x80 of a 64-bit program sets too. arm64: the saved
 * processor state.
 */
static __always_inline bool is_compat_call(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	const __u32 ts_compat = 0x2;
	struct task_struct *task;

	/* every system call on the host comes here: a direct load where it can be */
	if (has_current_btf())
		return bpf_get_current_task_btf()->thread_info.status & ts_compat;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, thread_info.status) & ts_compat;
#elif defined(__TARGET_ARCH_arm64)
	const __u64 psr_mode32 = 0x10;
	struct user_pt_regs *user = (void *)regs;

	return BPF_CORE_READ(user, pstate) & psr_mode32;
#endif
}

/*
 * The function behind each system call, and on amd64 the one behind its 32-bit
 * entry: 4.17 on amd64, 4.19 on arm64, where one function has both entries.
 */
#if defined(__TARGET_ARCH_x86)
#define CALL_FUNCTION "__x64_sys_"
#define COMPAT_CALL_FUNCTION "__ia32_sys_"
#elif defined(__TARGET_ARCH_arm64)
#define CALL_FUNCTION "__arm64_sys_"
#define COMPAT_CALL_FUNCTION "__arm64_sys_"
#endif

/* A program at the return of such a function. */
#define FEXIT_CALL(name, function, action)                                  \
	SEC("fexit/" function)                                              \
	int BPF_PROG(on_fexit_##name, const struct pt_regs *regs, long ret) \
	{                                                                   \
		return action;                                              \
	}

/* Of the call that the current thread is in. 5.15 */
static __always_inline struct pt_regs *saved_registers(void)
{
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

/* Number of the system call that the task is in, as its own entry counts. */
static __always_inline int syscall_number(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, orig_ax);
#elif defined(__TARGET_ARCH_arm64)
	return BPF_CORE_READ(regs, syscallno);
#endif
}

/*
 * bpf_map_update_elem(), to be compared with an error. Before 6.4 the kernel's
 * own functions behind it return an int and leave the upper half of the
 * register unset, so that a long is never equal to -EEXIST.
 */
static __always_inline int update_map(void *map, const void *key, const void *value, __u64 flags)
{
	return bpf_map_update_elem(map, key, value, flags);
}

/*
 * Atomic operations that return the old value: 5.12 on amd64; on arm64 they are
 * compiled since 5.18. A helper of that release tells.
 */
static __always_inline bool has_compare_and_swap(void)
{
#if defined(__TARGET_ARCH_x86)
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_check_mtu);
#elif defined(__TARGET_ARCH_arm64)
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_copy_from_user_task);
#endif
}

/*
 * The tables have slots: those need an atomic operation, and a socket's address
 * as a number, which only a cast makes without a helper that lockdown refuses.
 */
static __always_inline bool has_slots(void)
{
	return casts && has_compare_and_swap();
}

/* 5.6: sk_protocol became a plain field; before, a bit field. */
static __always_inline __u16 socket_protocol(const struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol);
}

/* 5.15: the cgroup of a socket; before, a pointer or two numbers in one word. */
struct sock_cgroup_data___v5_4 {
	__u64 val;
} __attribute__((preserve_access_index));

static __always_inline __u64 cgroup_of_socket(const struct sock *sk, const bool btf)
{
	struct sock_cgroup_data___v5_4 *old = (void *)&sk->sk_cgrp_data;
	struct cgroup *cgroup;
	struct kernfs_node *node;

	if (bpf_core_field_exists(old->val)) {
		cgroup = (void *)BPF_CORE_READ(old, val);
		if ((__u64)cgroup & 1)
			return 0;
		return BPF_CORE_READ(cgroup, kn, id);
	}
	cgroup = btf ? UNTRUSTED(struct sock, sk)->sk_cgrp_data.cgroup : BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	node = LOAD(btf, cgroup, kn);
	return LOAD(btf, node, id);
}

/*
 * The controller of which the version 1 hierarchy tells where a thread is, by
 * its number in enum cgroup_subsys_id, which differs with the kernel's
 * configuration; NO_ID: there is none.
 */
const volatile __u32 legacy_controller = NO_ID;

/*
 * The id of a thread's cgroup in that hierarchy, 0 if there is none. 5.5: it is
 * one number, which is never given twice; before, a union.
 */
static __always_inline __u64 legacy_cgroup(struct task_struct *task, const bool btf)
{
	const __u32 controller = legacy_controller;
	struct cgroup_subsys_state *state;
	struct kernfs_node *node;
	struct cgroup *cgroup;
	struct css_set *set;

	if (controller == NO_ID || !bpf_core_field_exists(struct kernfs_node, id))
		return 0;
	set = LOAD(btf, task, cgroups);
	state = LOAD(btf, set, subsys[controller]);
	cgroup = LOAD(btf, state, cgroup);
	node = LOAD(btf, cgroup, kn);
	return LOAD(btf, node, id);
}

/*
 * Idmapped mounts, 5.12. At first the mount names a user namespace; since 6.2
 * a struct mnt_idmap, with an owning namespace and later with its own maps.
 * The address of the mount's uid or gid map, 0 if it is not idmapped.
 */
struct vfsmount___v5_12 {
	struct user_namespace *mnt_userns;
} __attribute__((preserve_access_index));

struct mnt_idmap___v6_2 {
	struct user_namespace *owner;
} __attribute__((preserve_access_index));

static __always_inline __u64 mount_id_map(struct vfsmount *mount, struct user_namespace *of_file_system, bool group)
{
	struct user_namespace *owner = NULL;
	struct mnt_idmap___v6_2 *old_idmap;
	struct uid_gid_map *map;

	if (bpf_core_field_exists(struct mnt_idmap, uid_map)) {
		map = (void *)((__u64)BPF_CORE_READ(mount, mnt_idmap) +
			       (group ? bpf_core_field_offset(struct mnt_idmap, gid_map)
				      : bpf_core_field_offset(struct mnt_idmap, uid_map)));
		return BPF_CORE_READ(map, nr_extents) ? (__u64)map : 0;
	}
	if (bpf_core_field_exists(struct mnt_idmap___v6_2, owner)) {
		old_idmap = (void *)BPF_CORE_READ(mount, mnt_idmap);
		owner = BPF_CORE_READ(old_idmap, owner);
	} else if (bpf_core_field_exists(struct vfsmount___v5_12, mnt_userns)) {
		owner = BPF_CORE_READ((struct vfsmount___v5_12 *)mount, mnt_userns);
	}
	if (!owner || owner == of_file_system || !BPF_CORE_READ(owner, level))
		return 0;
	return (__u64)owner + (group ? bpf_core_field_offset(struct user_namespace, gid_map)
				     : bpf_core_field_offset(struct user_namespace, uid_map));
}

/* 6.18: the mounts of a file system hang together by a pointer; before, by a list. */
struct super_block___v6_18 {
	struct mount *s_mounts;
} __attribute__((preserve_access_index));

struct mount___v6_18 {
	struct mount *mnt_next_for_sb;
} __attribute__((preserve_access_index));

struct mount_chain {
	__u64 head; /* address in the file system */
	__u64 next; /* offset in a mount */
	__u64 back; /* from what next points to, to the mount */
};

static __always_inline struct mount_chain mounts_of(const struct super_block *sb)
{
	struct mount_chain chain;

	if (bpf_core_field_exists(struct mount___v6_18, mnt_next_for_sb)) {
		chain.head = bpf_core_field_offset(struct super_block___v6_18, s_mounts);
		chain.next = bpf_core_field_offset(struct mount___v6_18, mnt_next_for_sb);
		chain.back = 0;
		barrier_var(chain.head);
		barrier_var(chain.next);
	} else {
		chain.head = bpf_core_field_offset(struct super_block, s_mounts);
		chain.next = bpf_core_field_offset(struct mount, mnt_instance);
		barrier_var(chain.head);
		barrier_var(chain.next);
		chain.back = chain.next;
	}
	chain.head += (__u64)sb;
	return chain;
}

/* The mount that a link of the chain, at an address, leads to; 0 at the end. */
static __always_inline struct mount *mount_after(const struct mount_chain *chain, __u64 link)
{
	__u64 to = 0;

	bpf_probe_read_kernel(&to, sizeof(to), (void *)link);
	return to && to != chain->head ? (void *)(to - chain->back) : NULL;
}

/* The root of its mount namespace; false if only probe reads could tell. */
static __always_inline bool is_root_mount(__u64 mount)
{
	return casts && (__u64)CAST(true, struct mount, mount)->mnt_parent == mount;
}

/* CONFIG_AUDIT: without it nobody has a login uid. */
static __always_inline __u32 login_uid(struct task_struct *task, const bool btf)
{
	if (!bpf_core_field_exists(task->loginuid))
		return NO_ID;
	return LOAD(btf, task, loginuid.val);
}

static __always_inline struct task_struct *current_task(bool btf)
{
	return btf ? UNTRUSTED(struct task_struct, bpf_get_current_task_btf()) : (void *)bpf_get_current_task();
}

/*
 * 5.8: the credentials may come from another file than the one that is run
 * (binfmt_misc with the flag C).
 */
static __always_inline struct file *file_of_credentials(struct linux_binprm *bprm, const bool btf)
{
	if (bpf_core_field_exists(bprm->execfd_creds) && BPF_CORE_READ_BITFIELD_PROBED(bprm, execfd_creds))
		return LOAD(btf, bprm, executable);
	return LOAD(btf, bprm, file);
}

/* The first argument of a call through the 32-bit entry. */
static __always_inline __u32 compat_first_argument(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, bx);
#elif defined(__TARGET_ARCH_arm64)
	return BPF_CORE_READ(regs, orig_x0);
#endif
}

/*
 * Numbers of the calls through the 32-bit entry: i386's, and the ARM EABI's,
 * which agree but for the newer ones. The 16-bit forms came first.
 */
enum compat_call {
	COMPAT_SETUID16 = 23,
	COMPAT_SETGID16 = 46,
	COMPAT_SETREUID16 = 70,
	COMPAT_SETREGID16 = 71,
	COMPAT_SETGROUPS16 = 81,
	COMPAT_INIT_MODULE = 128,
	COMPAT_DELETE_MODULE = 129,
	COMPAT_SETFSUID16 = 138,
	COMPAT_SETFSGID16 = 139,
	COMPAT_SETRESUID16 = 164,
	COMPAT_SETRESGID16 = 170,
	COMPAT_CAPSET = 185,
	COMPAT_SETREUID = 203,
	COMPAT_SETREGID = 204,
	COMPAT_SETGROUPS = 206,
	COMPAT_SETRESUID = 208,
	COMPAT_SETRESGID = 210,
	COMPAT_SETUID = 213,
	COMPAT_SETGID = 214,
	COMPAT_SETFSUID = 215,
	COMPAT_SETFSGID = 216,
#if defined(__TARGET_ARCH_x86)
	COMPAT_UNSHARE = 310,
	COMPAT_FINIT_MODULE = 350,
#elif defined(__TARGET_ARCH_arm64)
	COMPAT_UNSHARE = 337,
	COMPAT_FINIT_MODULE = 379,
#endif
};

#endif
