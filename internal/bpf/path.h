/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The path of a file as its mount namespace's root names it, whatever root or
 * directory the process has. Not bpf_d_path(), which only few hooks may call
 * and which knows the process's root alone. Components are written from the
 * last to the first, so that what is cut of a long path is its beginning.
 */
#ifndef PATH_H
#define PATH_H

#include "abi.h"
#include "compat.h"
#include <bpf/bpf_helpers.h>

enum {
	/* A text has room for one component more, of NAME_MAX and a zero byte. */
	TEXT_FULL = TEXT_LEN / 2,
	PATH_COMPONENTS = 32,
	PATH_STEPS = 4,
	PATH_DIRECT = 8,
	MOUNTS_TRIED = 16,
};

/* A text of an event. */
struct text {
	__u8 bytes[TEXT_LEN];
};

/* Adds a component to a text; false if it is full. */
static __always_inline bool write_component(__u8 *text, volatile __u16 *length, const unsigned char *name)
{
	__u32 offset = *length;
	long n;

	if (offset >= TEXT_FULL)
		return false;
	n = bpf_probe_read_kernel_str(text + offset, TEXT_LEN - TEXT_FULL, name);
	if (n <= 0)
		return false;
	*length = offset + n;
	return true;
}

static __always_inline struct mount *mount_of(struct vfsmount *mnt, const bool btf)
{
	return (void *)(ADDRESS(btf, mnt) - bpf_core_field_offset(struct mount, mnt));
}

/*
 * On the way from a dentry to the root of its mount namespace. Addresses, not
 * pointers, whose types every program would be loaded with.
 */
struct path_walk {
	__u64 dentry, root; /* root: of the mount */
	__u64 mount;
	__u16 length;
	bool whole;
};

/* Some steps of write_rest(), which are verified once for all its calls. True when it is over. */
__noinline int write_some(struct text *text, struct path_walk *at)
{
	struct dentry *dentry, *root, *parent;
	const unsigned char *name;
	struct mount *mount, *up;
	char first = 0;
	int i;

	if (!text || !at)
		return true;
	dentry = (void *)at->dentry;
	root = (void *)at->root;
	mount = (void *)at->mount;
	for (i = 0; i < PATH_STEPS; i++) {
		if (dentry == root) {
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount) {
				at->whole = true;
				return true;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			root = BPF_CORE_READ(up, mnt.mnt_root);
			mount = up;
			continue;
		}
		name = BPF_CORE_READ(dentry, d_name.name);
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry) {
			/* a memfd has a name and lies nowhere; else, the file is not below this mount */
			bpf_probe_read_kernel(&first, sizeof(first), name);
			at->whole = first != '/' && write_component(text->bytes, &at->length, name);
			return true;
		}
		if (!write_component(text->bytes, &at->length, name))
			return true;
		dentry = parent;
	}
	at->dentry = (__u64)dentry;
	at->root = (__u64)root;
	at->mount = (__u64)mount;
	return false;
}

/* The rest of a path, from any dentry on its way, across mounts. True if the path is whole. */
static __always_inline bool write_rest(__u8 *text, __u16 *length, struct dentry *dentry, struct mount *mount)
{
	struct path_walk at = {
		.dentry = (__u64)dentry,
		.root = (__u64)BPF_CORE_READ(mount, mnt.mnt_root),
		.mount = (__u64)mount,
		.length = *length,
	};
	int i;

	for (i = 0; i < PATH_COMPONENTS / PATH_STEPS; i++)
		if (write_some((struct text *)text, &at))
			break;
	*length = at.length;
	return at.whole;
}

/*
 * The path of a file. The first steps inside its own mount are direct loads
 * (btf), which is all that most need.
 */
static __always_inline bool write_path(__u8 *text, __u16 *length, struct file *file, const bool btf)
{
	struct vfsmount *mnt = LOAD(btf, file, f_path.mnt);
	struct dentry *dentry = LOAD(btf, file, f_path.dentry), *parent, *root;
	int i;

	if (btf) {
		root = mnt->mnt_root;
		for (i = 0; i < PATH_DIRECT && dentry != root; i++) {
			parent = dentry->d_parent;
			if (parent == dentry)
				break;
			if (!write_component(text, length, dentry->d_name.name))
				return false;
			dentry = parent;
		}
		if (dentry == root && is_root_mount((__u64)mount_of(mnt, true)))
			return true;
	}
	return write_rest(text, length, (void *)ADDRESS(btf, dentry), mount_of(mnt, btf));
}

/*
 * A mount that shows a dentry to the current task, where the hook knows none.
 * 0 if its file system is not mounted there. Of several mounts of a file
 * system, the one of the task's directory or root comes first, then any: a
 * bind mount of a part of it may be the one, and then the path is not whole.
 */
static __always_inline struct mount *mount_for(struct dentry *dentry)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct super_block *sb = BPF_CORE_READ(dentry, d_sb);
	struct vfsmount *root = BPF_CORE_READ(task, fs, root.mnt), *pwd = BPF_CORE_READ(task, fs, pwd.mnt);
	struct mnt_namespace *ns = BPF_CORE_READ(task, nsproxy, mnt_ns);
	struct mount_chain chain;
	struct mount *mount;
	int i;

	if (BPF_CORE_READ(root, mnt_sb) == sb)
		return mount_of(root, false);
	if (BPF_CORE_READ(pwd, mnt_sb) == sb)
		return mount_of(pwd, false);
	chain = mounts_of(sb);
	mount = mount_after(&chain, chain.head);
	for (i = 0; i < MOUNTS_TRIED && mount; i++) {
		if (BPF_CORE_READ(mount, mnt_ns) == ns)
			return mount;
		mount = mount_after(&chain, (__u64)mount + chain.next);
	}
	return NULL;
}

#endif
