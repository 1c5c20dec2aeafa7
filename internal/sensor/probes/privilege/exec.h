/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an exec did to the credentials, and whether the file's set-id bits or
 * capabilities did it. The rules are the kernel's own: bprm_fill_uid() of
 * fs/exec.c and cap_bprm_creds_from_file() of security/commoncap.c.
 */
#ifndef EXEC_H
#define EXEC_H

#include "abi.h"
#include "compat.h"
#include "credentials.h"

enum {
	S_ISUID_BIT = 04000,
	/* without the group's execute bit it once meant mandatory locking */
	S_ISGID_EXEC_BITS = 02010,
	SECBIT_NOROOT_BIT = 1,
	LSM_UNSAFE_NO_NEW_PRIVS_BIT = 4,
};

enum verdict { UNTOUCHED, HONOURED, REFUSED };

struct exec_verdict {
	enum verdict bits;
	enum verdict capabilities;
	__u32 old_id;
	__u32 new_id;
};

/* One bit. Whoever has the owner's id already neither gains nor is refused. */
static __always_inline enum verdict set_id_bit(__u32 owner, __u32 old, __u32 new)
{
	if (owner == old)
		return UNTOUCHED;
	return new == owner ? HONOURED : REFUSED;
}

static __always_inline void judge_bits(struct exec_verdict *out, struct file *file, const struct credentials *old,
				       const struct credentials *new, const bool btf)
{
	__u64 image = ADDRESS(btf, file);
	struct inode *inode = LOAD(btf, file, f_inode);
	__u16 mode = LOAD(btf, inode, i_mode);
	enum verdict group;

	out->old_id = old->euid;
	out->new_id = new->euid;
	if (mode & S_ISUID_BIT)
		out->bits = set_id_bit(owner_of(image, false), old->euid, new->euid);
	if (out->bits == HONOURED || (mode & S_ISGID_EXEC_BITS) != S_ISGID_EXEC_BITS)
		return;
	group = set_id_bit(owner_of(image, true), old->egid, new->egid);
	if (group == UNTOUCHED)
		return;
	out->bits = group;
	out->old_id = old->egid;
	out->new_id = new->egid;
}

/*
 * File capabilities that were there and gave nothing. The kernel leaves no
 * trace of them but AT_SECURE (secureexec), which it also sets for other
 * reasons: those are excluded. bprm->unsafe says that there was a reason to
 * refuse: no_new_privs, a tracer, a shared fs_struct.
 */
static __always_inline bool capabilities_refused(struct linux_binprm *bprm, enum verdict bits,
						 const struct credentials *old, const struct credentials *new,
						 __u32 root)
{
	int unsafe = BPF_CORE_READ(bprm, unsafe);

	if (!unsafe || !BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		return false;
	if (new->uid == root || new->euid != new->uid || new->egid != new->gid || new->euid != old->euid)
		return false;
	if (bits == REFUSED && !(unsafe & LSM_UNSAFE_NO_NEW_PRIVS_BIT))
		return false;
	return !(new->permitted & ~new->ambient);
}

/*
 * Root's own rule gives every capability to a program that runs as root, and
 * a file's capabilities then count for nothing; except that a set-user-id-root
 * program with capabilities of its own gets just those.
 */
static __always_inline enum verdict judge_capabilities(struct linux_binprm *bprm, const struct cred *cred,
						       enum verdict bits, const struct credentials *old,
						       const struct credentials *new, const bool btf)
{
	__u64 permitted = new->permitted & ~old->permitted;
	__u64 effective = new->effective & ~old->effective & ~new->ambient;
	__u32 root;
	bool root_rule;
	__u64 all;

	/* nearly every exec: nothing was given, and nothing stood in the way */
	if (!(permitted | effective) && (!bprm || !LOAD(btf, bprm, unsafe)))
		return UNTOUCHED;
	root = kernel_uid(BPF_CORE_READ(cred, user_ns), 0);
	root_rule = !(BPF_CORE_READ(cred, securebits) & SECBIT_NOROOT_BIT);
	all = capabilities(&cred->cap_bset, false) | capabilities(&cred->cap_inheritable, false);
	if (root_rule && new->euid == root && (new->uid == root || new->permitted == all))
		return UNTOUCHED;
	if (root_rule && new->uid == root)
		permitted = 0;
	if (permitted | effective)
		return HONOURED;
	return bprm && capabilities_refused(bprm, bits, old, new, root) ? REFUSED : UNTOUCHED;
}

/*
 * Before 6.10 the old credentials are gone when an exec can be seen. An
 * ordinary process had its real ids as effective ones, and no capabilities
 * but the ambient.
 */
static __always_inline void assume_ordinary(struct credentials *old, const struct credentials *new)
{
	*old = *new;
	old->euid = new->uid;
	old->egid = new->gid;
	old->permitted = new->ambient;
	old->effective = new->ambient;
}

#endif
