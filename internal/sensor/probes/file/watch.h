/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Is this file watched? By object: the kernel's own (device, inode,
 * generation), whatever name it was reached by. By name: an entry of a watched
 * directory, which holds from the moment the name exists. A directory is known
 * by its object, or by its path below the root of its mount namespace, which
 * is how containers and directories that were made anew are recognised.
 */
#ifndef WATCH_H
#define WATCH_H

#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

enum {
	S_IFMT_BITS = 0170000,
	S_IFDIR_BITS = 0040000,
	CLIMB_MAX = 24,
	/* match: what tells a watched file or name from others, and its severities */
	MATCH_WRITE_SHIFT = 8,
	MATCH_ID_SHIFT = 16,
	MATCH_SEVERITY = 0x7f,
	MATCH_FOUND = 0x8000,
};

#define NO_DIRECTORY 0xffffffffU

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCH_OBJECTS);
	__type(key, struct object);
	__type(value, struct watch);
} watched_objects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCH_DIRECTORIES);
	__type(key, struct object);
	__type(value, __u32);
} watched_directories SEC(".maps");

/* Hash of a path, see path_of(), to the number of a directory. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCH_DIRECTORIES);
	__type(key, __u64);
	__type(value, __u32);
} watched_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WATCH_DIRECTORIES);
	__type(key, __u32);
	__type(value, struct directory);
} directories SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCH_NAMES);
	__type(key, struct name);
	__type(value, struct watch);
} watched_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WATCH_PATTERNS);
	__type(key, __u32);
	__type(value, struct pattern);
} patterns SEC(".maps");

/*
 * What every open on the host pays: three bits. Bit fold(x) of filter is set if
 * an object or directory with inode number x, or a directory whose name begins
 * with the bytes x, is watched. Set by Go, never cleared while the programs run.
 */
volatile __u64 filter[WATCH_FILTER_BITS / 64];

/*
 * Multiplicative hashing (Knuth), as in Go: the low bits of inode numbers are
 * alike, since a file system starts each directory at a block group of its own.
 */
static __always_inline __u64 fold(__u64 word)
{
	return word * 0x9e3779b97f4a7c15ULL >> 48;
}

static __always_inline bool may_be_watched(__u64 word)
{
	__u64 bit = fold(word) & (WATCH_FILTER_BITS - 1);

	return filter[bit / 64] & (1ULL << bit % 64);
}

/* The first seven bytes of a name. */
static __always_inline __u64 start_of_name(const unsigned char *name)
{
	__u64 word = 0;

	bpf_probe_read_kernel_str(&word, sizeof(word), name);
	return word;
}

/* The quick check, for an inode with the dentry it was reached by. */
static __always_inline bool worth_a_look(struct inode *inode, struct dentry *dentry, const bool btf)
{
	struct dentry *parent = LOAD(btf, dentry, d_parent);
	struct inode *directory = LOAD(btf, parent, d_inode);

	return may_be_watched(LOAD(btf, inode, i_ino)) || may_be_watched(LOAD(btf, directory, i_ino)) ||
	       may_be_watched(start_of_name(LOAD(btf, parent, d_name.name)));
}

static __always_inline struct object object_of(struct inode *inode)
{
	struct object object = {
		.inode = BPF_CORE_READ(inode, i_ino),
		.device = BPF_CORE_READ(inode, i_sb, s_dev),
		.generation = BPF_CORE_READ(inode, i_generation),
	};

	return object;
}

static __always_inline bool is_directory(struct inode *inode)
{
	return (BPF_CORE_READ(inode, i_mode) & S_IFMT_BITS) == S_IFDIR_BITS;
}

/*
 * Hash of the path of a directory, its components taken from the last to the
 * first, each as zero-padded words; Go does the same. Across mounts if the
 * mount is known, else to the root of the file system or of the task. 0 when
 * the path is deeper or a name longer than any that is watched.
 */
__noinline __u64 path_of(__u64 directory, __u64 mount_address)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct dentry *dentry = (void *)directory, *root, *parent;
	struct mount *mount = (void *)mount_address, *up;
	__u64 hash = 0xcbf29ce484222325ULL;
	__u64 words[NAME_LEN / 8];
	int depth, i;

	root = mount ? BPF_CORE_READ(mount, mnt.mnt_root) : BPF_CORE_READ(task, fs, root.dentry);
	for (depth = 0; depth < CLIMB_MAX; depth++) {
		if (dentry == root) {
			if (!mount)
				return hash;
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount)
				return hash;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			root = BPF_CORE_READ(up, mnt.mnt_root);
			mount = up;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			return mount ? 0 : hash;
		if (BPF_CORE_READ(dentry, d_name.len) >= NAME_LEN)
			return 0;
		__builtin_memset(words, 0, sizeof(words));
		bpf_probe_read_kernel_str(words, sizeof(words), BPF_CORE_READ(dentry, d_name.name));
		for (i = 0; i < NAME_LEN / 8; i++)
			hash = (hash ^ words[i]) * 0x100000001b3ULL;
		dentry = parent;
	}
	return 0;
}

static __always_inline __u32 directory_of(struct dentry *parent, struct mount *mount)
{
	struct object object = object_of(BPF_CORE_READ(parent, d_inode));
	__u32 *number = bpf_map_lookup_elem(&watched_directories, &object);
	__u64 path;

	if (number)
		return *number;
	path = path_of((__u64)parent, (__u64)mount);
	number = path ? bpf_map_lookup_elem(&watched_paths, &path) : NULL;
	return number ? *number : NO_DIRECTORY;
}

/* Arithmetic for loops without branches, of which the verifier would follow all. */
static __always_inline __u32 is_below(__u32 a, __u32 b)
{
	__u32 difference = a - b;

	barrier_var(difference);
	return difference >> 31;
}

static __always_inline __u32 differs(__u32 a, __u32 b)
{
	__u32 bits = a ^ b;

	barrier_var(bits);
	bits |= -bits;
	barrier_var(bits);
	return bits >> 31;
}

/*
 * Does a name match a pattern? Its first bytes against the prefix, its last
 * against the suffix. Buffers are on the stack, not per CPU: where the kernel
 * preempts, another task may run the same program on this CPU in between.
 */
__noinline int matches(__u32 number, __u64 name, __u32 length)
{
	struct pattern *pattern = bpf_map_lookup_elem(&patterns, &number);
	__u32 prefix, suffix, i, wrong = 0;
	__u8 text[NAME_LEN] = {};

	if (!pattern)
		return false;
	prefix = pattern->prefix;
	suffix = pattern->suffix;
	if (length < prefix + suffix || (!pattern->star && length != prefix))
		return false;
	bpf_probe_read_kernel_str(text, sizeof(text), (void *)name);
	for (i = 0; i < NAME_LEN; i++) {
		__u32 want = pattern->text[i];

		wrong |= is_below(i, prefix) & differs(want, '?') & differs(want, text[i]);
	}
	bpf_probe_read_kernel_str(text, sizeof(text), (void *)(name + length - suffix));
	for (i = 0; i < NAME_LEN; i++) {
		__u32 want = pattern->text[(prefix + i) & (NAME_LEN - 1)];

		wrong |= is_below(i, suffix) & differs(want, '?') & differs(want, text[i]);
	}
	return !wrong;
}

/*
 * Matches are numbers, never 0, and not structures to be filled: before 5.12
 * only functions that take no pointers are verified once for all their calls.
 */
static __always_inline __u64 match_of(__u64 id, __u32 read, __u32 write)
{
	return id << MATCH_ID_SHIFT | MATCH_FOUND | write << MATCH_WRITE_SHIFT | read;
}

static __always_inline __u32 severity_of(__u64 match, __u32 operation)
{
	return match >> operation * MATCH_WRITE_SHIFT & MATCH_SEVERITY;
}

/* Whether two matches are of the same: the rules may have changed in between. */
static __always_inline bool is_same(__u64 a, __u64 b)
{
	return !((a ^ b) >> MATCH_ID_SHIFT);
}

/* The severer of two, which is the lower number, if it counts at all. */
static __always_inline __u32 severer(__u32 a, __u32 b, __u32 counts)
{
	return a ^ ((a ^ b) & -(is_below(b, a) & counts));
}

static __always_inline __u64 hash_of(const struct name *name)
{
	const __u32 *words = (const void *)name;
	__u64 hash = 0xcbf29ce484222325ULL;
	int i;

	for (i = 0; i < (int)(sizeof(*name) / 4); i++)
		hash = (hash ^ words[i]) * 0x100000001b3ULL;
	return hash;
}

/* Looks a name up in its directory. Returns a match, 0 if it is not watched. */
__noinline __u64 match_name(__u64 dentry_address, __u64 mount)
{
	struct dentry *dentry = (void *)dentry_address;
	struct directory *directory;
	struct pattern *pattern;
	struct name name = {};
	struct watch *exact;
	__u32 i, number, length, found, read = SEVERITY_COUNT, write = SEVERITY_COUNT;
	__u64 text;

	name.directory = directory_of(BPF_CORE_READ(dentry, d_parent), (void *)mount);
	if (name.directory == NO_DIRECTORY)
		return 0;
	directory = bpf_map_lookup_elem(&directories, &name.directory);
	if (!directory)
		return 0;
	text = (__u64)BPF_CORE_READ(dentry, d_name.name);
	length = BPF_CORE_READ(dentry, d_name.len);
	bpf_probe_read_kernel_str(name.text, sizeof(name.text), (void *)text);

	/*
	 * A name of its own says what it costs; only without one do the glob
	 * and the directory that it falls under.
	 */
	exact = length < NAME_LEN ? bpf_map_lookup_elem(&watched_names, &name) : NULL;
	if (exact)
		return match_of(hash_of(&name), exact->read, exact->write);
	for (i = 0; i < WATCH_DIRECTORY_PATTERNS && i < directory->patterns; i++) {
		number = directory->first_pattern + i;
		pattern = bpf_map_lookup_elem(&patterns, &number);
		if (!pattern)
			break;
		found = matches(number, text, length) & 1;
		read = severer(read, pattern->watch.read, found);
		write = severer(write, pattern->watch.write, found);
	}
	if (read == SEVERITY_COUNT && write == SEVERITY_COUNT) {
		read = directory->any.read;
		write = directory->any.write;
	}
	if (read == SEVERITY_COUNT && write == SEVERITY_COUNT)
		return 0;
	return match_of(hash_of(&name), read, write);
}

/* By object first, then by name. mount may be 0 if it is not known. */
__noinline __u64 match_file(__u64 inode_address, __u64 dentry_address, __u64 mount_address)
{
	struct inode *inode = (void *)inode_address;
	struct dentry *dentry = (void *)dentry_address;
	struct mount *mount = (void *)mount_address;
	struct object object;
	struct watch *known;
	int depth;

	if (is_directory(inode))
		return 0;
	object = object_of(inode);
	known = bpf_map_lookup_elem(&watched_objects, &object);
	if (known)
		return match_of(object.inode, known->read, known->write);
	/* a file that is itself a mount has its name where it is mounted */
	for (depth = 0; depth < 4 && mount && dentry == BPF_CORE_READ(mount, mnt.mnt_root); depth++) {
		dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		mount = BPF_CORE_READ(mount, mnt_parent);
	}
	return match_name((__u64)dentry, (__u64)mount);
}

#endif
