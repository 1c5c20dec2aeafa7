/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Writes that open nothing: a watched name is replaced, renamed, removed,
 * truncated, or its mode or owner changes. What a call is about to change is
 * remembered when the kernel touches the inode, by thread, or by request for a
 * ring, whose worker need not be the one that completes it; and counted when
 * the call has succeeded: the names an inode had before against those it has
 * after, so that each watched name counts once however the call got there.
 */
#ifndef CHANGES_H
#define CHANGES_H

#include "calls.h"
#include "counters.h"
#include "events.h"
#include "watch.h"

enum { ALIASES_MAX = 4, NAMED_MAX = 2, INODES_MAX = 4, COUNTED_MAX = 8, PENDING_MAX = 384 };

/* The watched names of one inode. */
struct names {
	__u64 matches[ALIASES_MAX];
	__u32 count;
	__u32 pad;
};

struct change {
	__u64 inode; /* address */
	__u64 number;
	struct names before;
	__u64 match; /* of the file itself; 0 if it is not watched */
	__u32 generation;
	__u32 pad;
};

/* How a watched name reads, which after the call may be gone. */
struct named {
	__u64 match;
	__u64 directory; /* address of its dentry */
	__u8 text[NAME_LEN];
};

/* What one thread is changing. */
struct pending {
	__u32 count;
	__u32 depth;
	struct names after;
	struct change changes[INODES_MAX];
	__u64 counted[COUNTED_MAX];
	struct named named[NAMED_MAX];
	__u32 counted_count;
	__u32 named_count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PENDING_MAX);
	__type(key, __u64);
	__type(value, struct pending);
} pending_changes SEC(".maps");

/* Read-only, all zero: a new entry is too long for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pending);
} no_changes SEC(".maps");

/* Who is changing: the current thread, where it is not a ring's request. */
static __always_inline __u64 current_thread(void)
{
	return (__u32)bpf_get_current_pid_tgid();
}

static __always_inline struct pending *pending_of(__u64 owner, bool create)
{
	const __u32 zero = 0;
	struct pending *pending = bpf_map_lookup_elem(&pending_changes, &owner);
	struct pending *empty;

	if (pending || !create)
		return pending;
	empty = bpf_map_lookup_elem(&no_changes, &zero);
	if (!empty)
		return NULL;
	if (bpf_map_update_elem(&pending_changes, &owner, empty, BPF_NOEXIST)) {
		add(&map_evictions, TABLE_PENDING, 1);
		return NULL;
	}
	return bpf_map_lookup_elem(&pending_changes, &owner);
}

static __always_inline void forget(__u64 owner)
{
	bpf_map_delete_elem(&pending_changes, &owner);
}

/* The union around d_alias lost its name in the 7 series. */
struct dentry___without_d_u {
	struct hlist_node d_alias;
} __attribute__((preserve_access_index));

static __always_inline struct dentry *alias_of(struct hlist_node *node)
{
	if (bpf_core_field_exists(struct dentry, d_u.d_alias))
		return (void *)((__u64)node - bpf_core_field_offset(struct dentry, d_u.d_alias));
	return (void *)((__u64)node - bpf_core_field_offset(struct dentry___without_d_u, d_alias));
}

/* Remembers how a watched name reads, for the event. */
static __always_inline void remember_name(struct pending *pending, __u64 match, struct dentry *dentry)
{
	__u32 i;

	if (!stream)
		return;
	for (i = 0; i < NAMED_MAX && i < pending->named_count; i++)
		if (is_same(pending->named[i].match, match))
			return;
	i = pending->named_count;
	if (i >= NAMED_MAX)
		return;
	pending->named[i].match = match;
	pending->named[i].directory = (__u64)BPF_CORE_READ(dentry, d_parent);
	bpf_probe_read_kernel_str(pending->named[i].text, NAME_LEN, BPF_CORE_READ(dentry, d_name.name));
	pending->named_count = i + 1;
}

/* Collects the watched names among the names that the inode has now. */
__noinline int scan_names(struct pending *pending, __u64 inode, struct names *names)
{
	struct hlist_node *node = BPF_CORE_READ((struct inode *)inode, i_dentry.first);
	struct dentry *dentry;
	__u32 i, at, count = 0;
	__u64 match;

	if (!pending || !names)
		return 0;
	for (i = 0; i < ALIASES_MAX && node; i++) {
		dentry = alias_of(node);
		node = BPF_CORE_READ(node, next);
		if (!BPF_CORE_READ(dentry, d_hash.pprev))
			continue;
		match = match_name((__u64)dentry, 0);
		if (!match || count >= ALIASES_MAX)
			continue;
		/* before 5.12 the verifier forgets the bound of what was on the stack */
		at = count++;
		barrier_var(at);
		at &= ALIASES_MAX - 1;
		names->matches[at] = match;
		remember_name(pending, match, dentry);
	}
	names->count = count;
	return 0;
}

/* Remembers an inode that the present call is changing. */
__noinline int begin_change(__u64 owner, __u64 address)
{
	struct inode *inode = (void *)address;
	struct pending *pending;
	struct hlist_node *node;
	struct change *change;
	__u32 i;

	if (!inode || is_directory(inode))
		return 0;
	pending = pending_of(owner, true);
	if (!pending)
		return 0;
	for (i = 0; i < INODES_MAX && i < pending->count; i++)
		if (pending->changes[i].inode == address)
			return 0;
	i = pending->count;
	if (i >= INODES_MAX)
		return 0;
	change = &pending->changes[i];
	change->inode = address;
	change->number = BPF_CORE_READ(inode, i_ino);
	change->generation = BPF_CORE_READ(inode, i_generation);
	scan_names(pending, address, &change->before);
	node = BPF_CORE_READ(inode, i_dentry.first);
	change->match = node ? match_file(address, (__u64)alias_of(node), 0) : 0;
	pending->count = i + 1;
	return 0;
}

__noinline int count_access(__u64 match, __u32 operation, __u64 dentry, __u64 mount, __u64 name);

/* Counts a write to a name, unless this call has counted it already. */
static __always_inline void count_once(struct pending *pending, __u64 match, __u64 dentry)
{
	__u64 name = 0;
	__u32 i;

	for (i = 0; i < COUNTED_MAX && i < pending->counted_count; i++)
		if (is_same(pending->counted[i], match))
			return;
	i = pending->counted_count;
	if (i < COUNTED_MAX) {
		pending->counted[i] = match;
		pending->counted_count = i + 1;
	}
	if (!stream || dentry)
		goto count;
	/* the bound apart from other conditions, with which older verifiers lose it */
	for (i = 0; i < NAMED_MAX; i++) {
		if (i >= pending->named_count)
			break;
		if (!is_same(pending->named[i].match, match))
			continue;
		dentry = pending->named[i].directory;
		name = address_by_stack(pending->named[i].text);
		break;
	}
count:
	count_access(match, OPERATION_WRITE, dentry, 0, name);
}

/* Counts the names of a that are not among those of b. */
__noinline int count_difference(struct pending *pending, struct names *a, struct names *b)
{
	__u32 i, j;
	bool kept;

	if (!pending || !a || !b)
		return 0;
	for (i = 0; i < ALIASES_MAX && i < a->count; i++) {
		kept = false;
		for (j = 0; j < ALIASES_MAX; j++)
			kept |= j < b->count && is_same(b->matches[j], a->matches[i]);
		if (!kept)
			count_once(pending, a->matches[i], 0);
	}
	return 0;
}

/* The call has ended: counts what it did to watched names, if it succeeded. */
__noinline int end_change(__u64 owner, __u32 call, __s64 result)
{
	struct pending *pending = pending_of(owner, false);
	struct hlist_node *node;
	struct change *change;
	struct inode *inode;
	__u32 i;

	if (!pending)
		return 0;
	for (i = 0; i < INODES_MAX && i < pending->count && !result; i++) {
		change = &pending->changes[i];
		inode = (void *)change->inode;
		if (call == CALL_ATTRIBUTE) {
			node = BPF_CORE_READ(inode, i_dentry.first);
			if (change->match)
				count_once(pending, change->match, node ? (__u64)alias_of(node) : 0);
			continue;
		}
		/* it may have been freed, and another have taken its place */
		pending->after.count = 0;
		if (BPF_CORE_READ(inode, i_ino) == change->number &&
		    BPF_CORE_READ(inode, i_generation) == change->generation)
			scan_names(pending, change->inode, &pending->after);
		count_difference(pending, &change->before, &pending->after);
		count_difference(pending, &pending->after, &change->before);
	}
	forget(owner);
	return 0;
}

/* Was this inode changed by the open that is just ending? That is O_TRUNC. */
static __always_inline bool was_truncated(__u64 owner, __u64 inode)
{
	struct pending *pending = pending_of(owner, false);
	bool found = false;
	__u32 i;

	if (!pending)
		return false;
	for (i = 0; i < INODES_MAX; i++)
		found |= i < pending->count && pending->changes[i].inode == inode;
	forget(owner);
	return found;
}

#endif
