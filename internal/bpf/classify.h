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
	CLIMB_STEPS = 16,
	DIRECT_DEPTH_MAX = 12,
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
 * The heavy parts are global functions: the verifier checks each of them once
 * and not again at every call, and they take bare addresses, which all hooks
 * have. They read with probe reads.
 */

/*
 * On the way from a directory to the root of its mount namespace. Addresses, not
 * pointers: each program is loaded with the types that its functions' parameters
 * lead to, and from a dentry that is most of the kernel's file systems.
 */
struct climb {
	__u64 dentry, root; /* root: of the mount */
	__u64 mount;
	__u64 top; /* the name of the topmost directory so far, 0 for none */
};

enum { NAMELESS = 1 };

/*
 * Some steps of climb(), which are verified once for all its calls. True when
 * it is over: then top is what climb() returns.
 */
__noinline int climb_on(struct climb *at)
{
	struct dentry *dentry, *root, *parent;
	struct mount *mount, *up;
	__u64 top;
	int i;

	if (!at)
		return true;
	dentry = (void *)at->dentry;
	root = (void *)at->root;
	mount = (void *)at->mount;
	top = at->top;
	for (i = 0; i < CLIMB_STEPS; i++) {
		if (dentry == root) {
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount) {
				at->top = top ?: NAMELESS;
				return true;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			root = BPF_CORE_READ(up, mnt.mnt_root);
			mount = up;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry || (BPF_CORE_READ(parent, d_inode, i_mode) & S_IWOTH_BIT)) {
			at->top = 0;
			return true;
		}
		top = (__u64)BPF_CORE_READ(dentry, d_name.name);
		dentry = parent;
	}
	at->dentry = (__u64)dentry;
	at->root = (__u64)root;
	at->mount = (__u64)mount;
	at->top = top;
	return false;
}

/*
 * Climbs from a directory of a mount to the root of its mount namespace. top is
 * the name of the topmost directory seen so far, 0 for none. Returns the
 * topmost name, NAMELESS if there is none, or 0 if a directory on the way is
 * writable for others or the way does not end.
 */
__noinline __u64 climb(__u64 start, __u64 of_mount, __u64 top)
{
	struct climb at = { .dentry = start, .mount = of_mount, .top = top };
	int i;

	at.root = (__u64)BPF_CORE_READ((struct mount *)of_mount, mnt.mnt_root);
	for (i = 0; i < PATH_DEPTH_MAX / CLIMB_STEPS; i++)
		if (climb_on(&at))
			return at.top;
	return 0;
}

/*
 * Walks from a file to the root of its mount namespace. The first steps inside
 * the file's own mount are direct loads (btf), which is all that most programs
 * need.
 */
static __always_inline enum place place_of(struct file *file, const bool btf)
{
	struct vfsmount *vfsmount = LOAD(btf, file, f_path.mnt);
	struct dentry *leaf = LOAD(btf, file, f_path.dentry);
	struct dentry *root = LOAD(btf, vfsmount, mnt_root);
	struct dentry *dentry = leaf, *parent;
	struct inode *inode = LOAD(btf, file, f_inode);
	__u64 mount = ADDRESS(btf, vfsmount) - bpf_core_field_offset(struct mount, mnt), top;
	const unsigned char *name = NULL;
	int depth;

	/* memfd, O_TMPFILE, deleted: nothing on disk answers to this program */
	if (!LOAD(btf, inode, i_nlink) || !LOAD(btf, leaf, d_hash.pprev))
		return PLACE_SUSPICIOUS;

	for (depth = 0; depth < DIRECT_DEPTH_MAX && dentry != root; depth++) {
		parent = LOAD(btf, dentry, d_parent);
		inode = LOAD(btf, parent, d_inode);
		/* its own parent, but not the mount's root: moved out of a bind mount */
		if (parent == dentry || (LOAD(btf, inode, i_mode) & S_IWOTH_BIT))
			return PLACE_SUSPICIOUS;
		if (dentry != leaf)
			name = LOAD(btf, dentry, d_name.name);
		dentry = parent;
	}
	if (btf && dentry == root && is_root_mount(mount))
		return name && is_system_directory(name) ? PLACE_SYSTEM : PLACE_OTHER;
	top = climb(ADDRESS(btf, dentry), mount, address_by_stack(name));
	if (!top)
		return PLACE_SUSPICIOUS;
	return top != NAMELESS && is_system_directory((void *)top) ? PLACE_SYSTEM : PLACE_OTHER;
}

__noinline int is_in_suspicious_place(__u64 file)
{
	return place_of((struct file *)file, false) == PLACE_SUSPICIOUS;
}

/*
 * The scripts on the way to an interpreter. The kernel has let go of them, but
 * the last fput() of a file only queues its release as task work, done on the
 * way back to user space; so they are still on the list of the current task.
 * Before the old image is given up nothing else that was executed is there.
 * Afterwards its own file may be, and what the exec closed stands in front.
 */
__noinline int script_is_suspicious(__u64 task)
{
	struct callback_head *work = BPF_CORE_READ((struct task_struct *)task, task_works);
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
		    (BPF_CORE_READ(file, f_flags) & FMODE_EXEC_BIT) && is_in_suspicious_place((__u64)file))
			return true;
		work = BPF_CORE_READ(work, next);
	}
	return false;
}

/*
 * Shells and interpreters that a remote shell is made of. Digits and dots at
 * the end of the name are ignored: python3.11 is python.
 */
/* clang-format off */
static const char interpreters[][INTERPRETER_LEN] __attribute__((aligned(8))) = {
	"sh",
	"bash",
	"rbash",
	"dash",
	"ash",
	"zsh",
	"ksh",
	"mksh",
	"lksh",
	"pdksh",
	"yash",
	"fish",
	"csh",
	"tcsh",
	"rc",
	"es",
	"elvish",
	"nu",
	"xonsh",
	"osh",
	"busybox",
	"toybox",
	"python",
	"pypy",
	"perl",
	"ruby",
	"php",
	"lua",
	"luajit",
	"node",
	"nodejs",
	"deno",
	"bun",
	"tclsh",
	"expect",
	"awk",
	"gawk",
	"mawk",
	"nawk",
	"pwsh",
	"guile",
	"socat",
	"nc.traditional",
	"nc.openbsd",
	"ncat",
};
/* clang-format on */

/*
 * 1 for a byte that belongs to a name's stem, 0 for a zero, a dot or a digit.
 * Without a branch: the verifier would follow both for each byte.
 */
static __always_inline __u64 is_of_stem(__s32 c)
{
	__s32 zero = c - 1, dot = (c ^ '.') - 1, digit = ~((c - '0') | ('9' - c)); /* if so, negative */
	__u64 outside = (__u32)(zero | dot | digit) >> 31;

	barrier_var(outside);
	return 1 - outside;
}

__noinline int is_interpreter(__u64 dentry_name, __u32 length)
{
	__u64 words[INTERPRETER_LEN / 8] = {}, stem = 0;
	int i;

	if (length >= INTERPRETER_LEN)
		return false;
	bpf_probe_read_kernel_str(words, sizeof(words), (void *)dentry_name);
	for (i = INTERPRETER_LEN - 1; i >= 0; i--) {
		stem |= is_of_stem(words[i / 8] >> (i % 8 * 8) & 0xff);
		words[i / 8] &= ~((1 - stem) * 0xffULL << (i % 8 * 8));
	}
	for (i = 0; i < (int)(sizeof(interpreters) / INTERPRETER_LEN); i++) {
		const __u64 *known = (const __u64 *)interpreters[i];
		__u64 differs = (words[0] ^ known[0]) | (words[1] ^ known[1]);

		barrier_var(differs); /* one question for the verifier, not two */
		if (!differs)
			return true;
	}
	return false;
}

static __always_inline bool is_inet_socket(struct file *file, const bool btf)
{
	struct socket *socket;
	__u16 family, mode;

	if (!file)
		return false;
	if (btf && casts)
		mode = CAST(true, struct file, file)->f_inode->i_mode;
	else
		mode = BPF_CORE_READ(file, f_inode, i_mode);
	if ((mode & S_IFMT_BITS) != S_IFSOCK_BITS)
		return false;
	socket = BPF_CORE_READ(file, private_data);
	family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
	return family == AF_INET_FAMILY || family == AF_INET6_FAMILY;
}

/* Standard input or output is a TCP, UDP or raw IP socket. */
static __always_inline bool has_inet_stdio(struct task_struct *task, const bool btf)
{
	struct file *stdio[2] = {};
	struct files_struct *files;
	struct fdtable *table;

	files = LOAD(btf, task, files);
	if (!files)
		return false;
	table = LOAD(btf, files, fdt);
	bpf_probe_read_kernel(stdio, sizeof(stdio), LOAD(btf, table, fd));
	return is_inet_socket(stdio[0], btf) || (stdio[1] != stdio[0] && is_inet_socket(stdio[1], btf));
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

/* 1 or 0 without a branch: the verifier would follow both for each digit. */
static __always_inline __u32 is_hex(__s32 c)
{
	__s32 outside_digits = (c - '0') | ('9' - c), outside_letters = (c - 'a') | ('f' - c);
	__u32 outside = (__u32)(outside_digits & outside_letters) >> 31;

	barrier_var(outside);
	return 1 - outside;
}

/*
 * A directory that a container runtime makes: 64 hexadecimal digits (docker,
 * containerd, cri-o, podman, with or without a prefix), anything below
 * kubepods, and the fixed names of lxc and systemd-nspawn.
 */
__noinline int is_container_directory(__u64 node)
{
	char name[CGROUP_NAME_MAX] = {};
	__u32 digits = 0, found = 0;
	long length;
	int i;

	length = bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ((struct kernfs_node *)node, name));
	if (length <= 0)
		return false;
	if (STARTS_WITH(name, "kubepods") || STARTS_WITH(name, "lxc.payload") || STARTS_WITH(name, "systemd-nspawn@"))
		return true;
	if (length <= CONTAINER_ID_LEN)
		return false;
	for (i = 0; i < CGROUP_NAME_MAX; i++) {
		digits = (digits + 1) * is_hex(name[i]);
		found |= digits >> 6; /* CONTAINER_ID_LEN in a row */
	}
	return found != 0;
}

__noinline int is_in_container_cgroup(__u64 task)
{
	struct kernfs_node *node = BPF_CORE_READ((struct task_struct *)task, cgroups, dfl_cgrp, kn);
	int depth;

	for (depth = 0; depth < CGROUP_DEPTH_MAX && node; depth++) {
		if (is_container_directory((__u64)node))
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
 * The class of a task that runs file. suspect: it runs a script that lies in
 * a suspicious place.
 */
static __always_inline enum process_class classify(struct task_struct *task, struct file *file, bool contained,
						   bool suspect, const bool btf)
{
	enum place place = place_of(file, btf);
	struct dentry *dentry;

	if (suspect || place == PLACE_SUSPICIOUS)
		return CLASS_SUSPICIOUS;
	dentry = LOAD(btf, file, f_path.dentry);
	if (has_inet_stdio(task, btf) &&
	    is_interpreter(address_by_stack(LOAD(btf, dentry, d_name.name)), LOAD(btf, dentry, d_name.len)))
		return CLASS_SUSPICIOUS;
	if (contained || pid_namespace_level(task, btf) > 0)
		return CLASS_CONTAINER;
	return place == PLACE_SYSTEM ? CLASS_SYSTEM : CLASS_USER;
}

/* The executable of a task, NULL for kernel threads and for the dead. */
static __always_inline struct file *executable(struct task_struct *task, const bool btf)
{
	struct mm_struct *mm = LOAD(btf, task, mm);

	return mm ? LOAD(btf, mm, exe_file) : NULL;
}

/* The class of a task whose exec was not seen; its script is not known. */
__noinline int classify_running(__u64 address, bool contained)
{
	struct task_struct *task = (void *)address;
	struct file *file;

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD_BIT)
		return CLASS_SYSTEM;
	file = executable(task, false);
	return file ? classify(task, file, contained, false, false) : CLASS_USER;
}

#endif
