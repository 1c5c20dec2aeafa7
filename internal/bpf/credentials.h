/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Credentials: what of a cred decides about privilege, and ids across user
 * namespaces and idmapped mounts.
 */
#ifndef CREDENTIALS_H
#define CREDENTIALS_H

#include "abi.h"
#include "compat.h"

enum {
	/* user_namespaces(7): a map has at most 340 extents; 5 of them fit in place */
	EXTENTS_MAX_BITS = 9,
	EXTENTS_IN_PLACE = 5,
};

struct credentials {
	__u64 permitted;
	__u64 effective;
	__u64 ambient;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
};

static __always_inline void read_credentials(struct credentials *out, const struct cred *cred, const bool btf)
{
	out->permitted = capabilities(&cred->cap_permitted, btf);
	out->effective = capabilities(&cred->cap_effective, btf);
	out->ambient = capabilities(&cred->cap_ambient, btf);
	out->uid = LOAD(btf, cred, uid.val);
	out->gid = LOAD(btf, cred, gid.val);
	out->euid = LOAD(btf, cred, euid.val);
	out->egid = LOAD(btf, cred, egid.val);
}

/* Capabilities reach beyond a container only in the initial user namespace. */
static __always_inline bool in_initial_namespace(const struct cred *cred, const bool btf)
{
	struct user_namespace *ns = LOAD(btf, cred, user_ns);

	return LOAD(btf, ns, level) == 0;
}

/* The id that one extent has for another; NO_ID if it is not in there. */
static __always_inline __u32 id_in(const struct uid_gid_extent *extent, __u32 id, bool up)
{
	__u32 from = up ? extent->lower_first : extent->first, to = up ? extent->first : extent->lower_first;

	return id - from < extent->count ? to + (id - from) : NO_ID;
}

/*
 * An id through the map of a user namespace or a mount, down towards the
 * kernel's ids or up from them (kernel/user_namespace.c). Few extents are in
 * place and in any order; of more there are two arrays, each sorted by what is
 * looked for. NO_ID if the map does not hold it.
 */
__noinline __u32 map_id(__u64 address, __u32 id, bool up)
{
	struct uid_gid_map *map = (void *)address;
	__u32 low = 0, high = BPF_CORE_READ(map, nr_extents), middle, found;
	struct uid_gid_extent extent, *extents;
	int i;

	if (high <= EXTENTS_IN_PLACE) {
		extents = (void *)(address + bpf_core_field_offset(struct uid_gid_map, extent));
		for (i = 0; i < EXTENTS_IN_PLACE && i < high; i++) {
			if (bpf_probe_read_kernel(&extent, sizeof(extent), &extents[i]))
				return NO_ID;
			found = id_in(&extent, id, up);
			if (found != NO_ID)
				return found;
		}
		return NO_ID;
	}
	extents = up ? BPF_CORE_READ(map, reverse) : BPF_CORE_READ(map, forward);
	for (i = 0; i < EXTENTS_MAX_BITS && low < high; i++) {
		middle = (low + high) / 2;
		if (bpf_probe_read_kernel(&extent, sizeof(extent), &extents[middle]))
			return NO_ID;
		found = id_in(&extent, id, up);
		if (found != NO_ID)
			return found;
		if (id < (up ? extent.lower_first : extent.first))
			high = middle;
		else
			low = middle + 1;
	}
	return NO_ID;
}

/* A user id of a namespace as the kernel's own: make_kuid(). */
static __always_inline __u32 kernel_uid(struct user_namespace *ns, __u32 id)
{
	if (!BPF_CORE_READ(ns, level))
		return id;
	return map_id((__u64)ns + bpf_core_field_offset(struct user_namespace, uid_map), id, false);
}

static __always_inline __u32 kernel_gid(struct user_namespace *ns, __u32 id)
{
	if (!BPF_CORE_READ(ns, level))
		return id;
	return map_id((__u64)ns + bpf_core_field_offset(struct user_namespace, gid_map), id, false);
}

/*
 * The owner or group of a file as its mount shows it: make_vfsuid() and
 * make_vfsgid() of fs/mnt_idmapping.c. NO_ID if the mount has none for it.
 */
__noinline __u32 owner_of(__u64 address, bool group)
{
	struct file *file = (void *)address;
	struct vfsmount *mount = BPF_CORE_READ(file, f_path.mnt);
	struct user_namespace *ns = BPF_CORE_READ(mount, mnt_sb, s_user_ns);
	__u32 id = group ? BPF_CORE_READ(file, f_inode, i_gid.val) : BPF_CORE_READ(file, f_inode, i_uid.val);
	__u64 map = mount_id_map(mount, ns, group);

	if (!map)
		return id;
	if (BPF_CORE_READ(ns, level)) {
		id = map_id((__u64)ns + (group ? bpf_core_field_offset(struct user_namespace, gid_map)
					       : bpf_core_field_offset(struct user_namespace, uid_map)),
			    id, true);
		if (id == NO_ID)
			return NO_ID;
	}
	return map_id(map, id, false);
}

#endif
