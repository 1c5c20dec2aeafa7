/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The class of a process: where its executable lies, who may write there,
 * what its standard input is, and whether it runs in a container. All of it
 * from the kernel's own objects; nothing is read from the process's memory.
 */
#ifndef CLASSIFY_H
#define CLASSIFY_H

#include "abi.h"
#include "compat.h"

enum {
	S_IWOTH_BIT = 0002,
	S_IFMT_BITS = 0170000,
	S_IFREG_BITS = 0100000,
	S_IFSOCK_BITS = 0140000,
	FMODE_EXEC_BIT = 0x20,
	PF_KTHREAD_BIT = 0x00200000,
	AF_INET_FAMILY = 2,
	AF_INET6_FAMILY = 10,
	/* Deeper than any path a distribution installs; beyond it: suspicious. */
	PATH_DEPTH_MAX = 128,
	CGROUP_DEPTH_MAX = 8,
	CGROUP_NAME_MAX = 96,
	CONTAINER_ID_LEN = 64,
	TASK_WORKS_MAX = 8,
	INTERPRETER_LEN = 16,
};

/* What the path of a file says about who controls it. */
enum place { PLACE_SYSTEM, PLACE_OTHER, PLACE_SUSPICIOUS };

/* /usr, /bin, /sbin and /lib*, by the topmost directory's name. */
static __always_inline bool is_system_directory(const unsigned char *name)
{
	char top[8] = {};

	if (bpf_probe_read_kernel_str(top, sizeof(top), name) < 0)
		return false;
	if (top[0] == 'u' && top[1] == 's' && top[2] == 'r' && !top[3])
		return true;
	if (top[0] == 'b' && top[1] == 'i' && top[2] == 'n' && !top[3])
		return true;
	if (top[0] == 's' && top[1] == 'b' && top[2] == 'i' && top[3] == 'n' && !top[4])
		return true;
	return top[0] == 'l' && top[1] == 'i' && top[2] == 'b';
}

/*
 * Walks from a file to the root of its mount namespace, across mounts. Inside
 * the file's own mount the loads are direct (btf); above it every pointer is
 * a bare address, because struct mount is reached by subtraction.
 */
static __always_inline enum place place_of(struct file *file, const bool btf)
{
	struct vfsmount *vfsmount = LOAD(btf, file, f_path.mnt);
	struct dentry *leaf = LOAD(btf, file, f_path.dentry);
	struct dentry *root = LOAD(btf, vfsmount, mnt_root);
	struct dentry *dentry = leaf, *parent;
	const unsigned char *top = NULL;
	struct inode *inode = LOAD(btf, file, f_inode);
	struct mount *mount, *up;
	int depth = 0;

	/* memfd, O_TMPFILE, deleted: nothing on disk answers to this program */
	if (!LOAD(btf, inode, i_nlink) || !LOAD(btf, leaf, d_hash.pprev))
		return PLACE_SUSPICIOUS;

	for (depth = 0; depth < PATH_DEPTH_MAX && dentry != root; depth++) {
		parent = LOAD(btf, dentry, d_parent);
		if (parent == dentry) /* moved out of a bind mount */
			return PLACE_SUSPICIOUS;
		inode = LOAD(btf, parent, d_inode);
		if (LOAD(btf, inode, i_mode) & S_IWOTH_BIT)
			return PLACE_SUSPICIOUS;
		if (dentry != leaf)
			top = LOAD(btf, dentry, d_name.name);
		dentry = parent;
	}

	mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	for (; depth < PATH_DEPTH_MAX; depth++) {
		if (dentry == root) {
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount)
				break;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			root = BPF_CORE_READ(up, mnt.mnt_root);
			mount = up;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			return PLACE_SUSPICIOUS;
		if (BPF_CORE_READ(parent, d_inode, i_mode) & S_IWOTH_BIT)
			return PLACE_SUSPICIOUS;
		top = BPF_CORE_READ(dentry, d_name.name);
		dentry = parent;
	}
	if (depth >= PATH_DEPTH_MAX)
		return PLACE_SUSPICIOUS;
	return top && is_system_directory(top) ? PLACE_SYSTEM : PLACE_OTHER;
}

/*
 * The script behind an interpreter. By the time the exec is certain the
 * kernel has let go of it, but the last fput() of a file only queues its
 * release as task work, done on the way back to user space; so it, and every
 * interpreter in between, is still on the list of the current task.
 */
static __always_inline bool script_is_suspicious(struct task_struct *task)
{
	struct callback_head *work = BPF_CORE_READ(task, task_works);
	struct dentry *dentry;
	struct file *file;
	struct inode *inode;
	int i;

	for (i = 0; i < TASK_WORKS_MAX && work; i++) {
		file = file_of_task_work(work);
		inode = BPF_CORE_READ(file, f_inode);
		dentry = BPF_CORE_READ(file, f_path.dentry);
		/* other task work is no file: these three would not agree */
		if (inode && BPF_CORE_READ(dentry, d_inode) == inode &&
		    (BPF_CORE_READ(inode, i_mode) & S_IFMT_BITS) == S_IFREG_BITS &&
		    (BPF_CORE_READ(file, f_flags) & FMODE_EXEC_BIT) &&
		    place_of(file, false) == PLACE_SUSPICIOUS)
			return true;
		work = BPF_CORE_READ(work, next);
	}
	return false;
}

/*
 * Shells and interpreters that a remote shell is made of. Digits and dots at
 * the end of the name are ignored: python3.11 is python.
 */
static const char interpreters[][INTERPRETER_LEN] = {
	"sh",	"bash", "rbash", "dash", "ash",	 "zsh",	   "ksh",  "mksh",   "lksh",   "pdksh", "yash",	    "fish",
	"csh",	"tcsh", "rc",	 "es",	 "elvish", "nu",   "xonsh", "osh",    "busybox", "toybox", "python",  "pypy",
	"perl", "ruby", "php",	 "lua",	 "luajit", "node", "nodejs", "deno",  "bun",	 "tclsh",  "expect",  "awk",
	"gawk", "mawk", "nawk",	 "pwsh", "guile",  "socat", "nc.traditional", "nc.openbsd", "ncat",
};

static __always_inline bool is_interpreter(const unsigned char *dentry_name, __u32 length)
{
	union {
		char text[INTERPRETER_LEN];
		__u64 words[2];
	} name = {};
	int i;

	if (length >= INTERPRETER_LEN)
		return false;
	bpf_probe_read_kernel_str(name.text, sizeof(name.text), dentry_name);
	for (i = INTERPRETER_LEN - 1; i > 0; i--) {
		if (!name.text[i])
			continue;
		if (name.text[i] != '.' && (name.text[i] < '0' || name.text[i] > '9'))
			break;
		name.text[i] = 0;
	}
	for (i = 0; i < (int)(sizeof(interpreters) / INTERPRETER_LEN); i++) {
		const __u64 *known = (const __u64 *)interpreters[i];

		if (name.words[0] == known[0] && name.words[1] == known[1])
			return true;
	}
	return false;
}

static __always_inline bool is_inet_socket(struct file *file)
{
	struct socket *socket;
	__u16 family;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT_BITS) != S_IFSOCK_BITS)
		return false;
	socket = BPF_CORE_READ(file, private_data);
	family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
	return family == AF_INET_FAMILY || family == AF_INET6_FAMILY;
}

/* Standard input or output is a TCP, UDP or raw IP socket. */
static __always_inline bool has_inet_stdio(struct task_struct *task)
{
	struct file *stdio[2] = {};
	struct file **fds;

	fds = BPF_CORE_READ(task, files, fdt, fd);
	bpf_probe_read_kernel(stdio, sizeof(stdio), fds);
	return is_inet_socket(stdio[0]) || is_inet_socket(stdio[1]);
}

static __always_inline bool starts_with(const char *name, const char *prefix, int length)
{
	int i;

	for (i = 0; i < length; i++)
		if (name[i] != prefix[i])
			return false;
	return true;
}

#define STARTS_WITH(name, prefix) starts_with(name, prefix, sizeof(prefix) - 1)

/*
 * A directory that a container runtime makes: 64 hexadecimal digits (docker,
 * containerd, cri-o, podman, with or without a prefix), anything below
 * kubepods, and the fixed names of lxc and systemd-nspawn.
 */
static __always_inline bool is_container_name(struct kernfs_node *node)
{
	char name[CGROUP_NAME_MAX] = {};
	long length, i, digits = 0;

	length = bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(node, name));
	if (length <= 0)
		return false;
	if (STARTS_WITH(name, "kubepods") || STARTS_WITH(name, "lxc.payload") ||
	    STARTS_WITH(name, "systemd-nspawn@"))
		return true;
	if (length <= CONTAINER_ID_LEN)
		return false;
	for (i = 0; i < CGROUP_NAME_MAX; i++) {
		char c = name[i];

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')) {
			if (++digits == CONTAINER_ID_LEN)
				return true;
		} else {
			digits = 0;
		}
	}
	return false;
}

static __always_inline bool is_in_container_cgroup(struct task_struct *task)
{
	struct kernfs_node *node = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
	int depth;

	for (depth = 0; depth < CGROUP_DEPTH_MAX && node; depth++) {
		if (is_container_name(node))
			return true;
		node = kernfs_parent_of(node);
	}
	return false;
}

/* Nesting of the pid namespace; absolute, 0 is the host's. */
static __always_inline __u32 pid_namespace_level(struct task_struct *task, const bool btf)
{
	struct pid *pid = LOAD(btf, task, thread_pid);

	return pid ? LOAD(btf, pid, level) : 0;
}

/*
 * The class of a task that runs file. script: the image was named through an
 * interpreter, whose script is still at hand.
 */
static __always_inline enum process_class classify(struct task_struct *task, struct file *file, bool contained, bool script,
					   const bool btf)
{
	enum place place = place_of(file, btf);
	struct dentry *dentry;

	if (place == PLACE_SUSPICIOUS)
		return CLASS_SUSPICIOUS;
	if (script && script_is_suspicious(task))
		return CLASS_SUSPICIOUS;
	dentry = LOAD(btf, file, f_path.dentry);
	if (has_inet_stdio(task) && is_interpreter(LOAD(btf, dentry, d_name.name), LOAD(btf, dentry, d_name.len)))
		return CLASS_SUSPICIOUS;
	if (contained || pid_namespace_level(task, btf) > 0)
		return CLASS_CONTAINER;
	return place == PLACE_SYSTEM ? CLASS_SYSTEM : CLASS_USER;
}

#endif
