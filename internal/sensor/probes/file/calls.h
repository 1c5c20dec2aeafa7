/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which system call a thread is in, where it matters: the ctime tracepoints
 * fire for every change of an inode, and only some calls are writes by name.
 * Numbers are those of the architecture's own entry and of its 32-bit entry.
 */
#ifndef CALLS_H
#define CALLS_H

#include "compat.h"

enum call { CALL_NONE, CALL_OPEN, CALL_RENAME, CALL_UNLINK, CALL_ATTRIBUTE };

enum { PF_IO_WORKER_BIT = 0x10, PF_KTHREAD_BIT = 0x00200000 };

/* Common to all since they were added with one number everywhere. */
static __always_inline enum call recent_call(int number)
{
	switch (number) {
	case 437: /* openat2 */
		return CALL_OPEN;
	case 452: /* fchmodat2 */
		return CALL_ATTRIBUTE;
	default:
		return CALL_NONE;
	}
}

static __always_inline enum call native_call(int number)
{
	switch (number) {
#if defined(__TARGET_ARCH_x86)
	case 2:	  /* open */
	case 85:  /* creat */
	case 257: /* openat */
	case 304: /* open_by_handle_at */
		return CALL_OPEN;
	case 82:  /* rename */
	case 264: /* renameat */
	case 316: /* renameat2 */
		return CALL_RENAME;
	case 87:  /* unlink */
	case 263: /* unlinkat */
		return CALL_UNLINK;
	case 76:  /* truncate */
	case 77:  /* ftruncate */
	case 90:  /* chmod */
	case 91:  /* fchmod */
	case 92:  /* chown */
	case 93:  /* fchown */
	case 94:  /* lchown */
	case 260: /* fchownat */
	case 268: /* fchmodat */
		return CALL_ATTRIBUTE;
#elif defined(__TARGET_ARCH_arm64)
	case 56:  /* openat */
	case 265: /* open_by_handle_at */
		return CALL_OPEN;
	case 38:  /* renameat */
	case 276: /* renameat2 */
		return CALL_RENAME;
	case 35: /* unlinkat */
		return CALL_UNLINK;
	case 45: /* truncate */
	case 46: /* ftruncate */
	case 52: /* fchmod */
	case 53: /* fchmodat */
	case 54: /* fchownat */
	case 55: /* fchown */
		return CALL_ATTRIBUTE;
#endif
	default:
		return recent_call(number);
	}
}

/* i386, and the ARM EABI, which agree up to 300 in what is named here. */
static __always_inline enum call compat_call(int number)
{
	switch (number) {
	case 5: /* open */
	case 8: /* creat */
		return CALL_OPEN;
	case 38: /* rename */
		return CALL_RENAME;
	case 10: /* unlink */
		return CALL_UNLINK;
	case 15:  /* chmod */
	case 16:  /* lchown16 */
	case 92:  /* truncate */
	case 93:  /* ftruncate */
	case 94:  /* fchmod */
	case 95:  /* fchown16 */
	case 182: /* chown16 */
	case 193: /* truncate64 */
	case 194: /* ftruncate64 */
	case 198: /* lchown */
	case 207: /* fchown */
	case 212: /* chown */
		return CALL_ATTRIBUTE;
#if defined(__TARGET_ARCH_x86)
	case 295: /* openat */
	case 342: /* open_by_handle_at */
		return CALL_OPEN;
	case 302: /* renameat */
	case 353: /* renameat2 */
		return CALL_RENAME;
	case 301: /* unlinkat */
		return CALL_UNLINK;
	case 298: /* fchownat */
	case 306: /* fchmodat */
		return CALL_ATTRIBUTE;
#elif defined(__TARGET_ARCH_arm64)
	case 322: /* openat */
	case 371: /* open_by_handle_at */
		return CALL_OPEN;
	case 329: /* renameat */
	case 382: /* renameat2 */
		return CALL_RENAME;
	case 328: /* unlinkat */
		return CALL_UNLINK;
	case 325: /* fchownat */
	case 333: /* fchmodat */
		return CALL_ATTRIBUTE;
#endif
	default:
		return recent_call(number);
	}
}

/* io_uring's own numbers for the same (include/uapi/linux/io_uring.h). */
static __always_inline enum call ring_call(__u8 opcode)
{
	switch (opcode) {
	case 18: /* IORING_OP_OPENAT */
	case 28: /* IORING_OP_OPENAT2 */
		return CALL_OPEN;
	case 35: /* IORING_OP_RENAMEAT */
		return CALL_RENAME;
	case 36: /* IORING_OP_UNLINKAT */
		return CALL_UNLINK;
	case 55: /* IORING_OP_FTRUNCATE */
		return CALL_ATTRIBUTE;
	default:
		return CALL_NONE;
	}
}

/* What a ring's worker thread is carrying out: its request is its work item. */
struct io_worker___any {
	struct io_wq_work *cur_work;
} __attribute__((preserve_access_index));

static __always_inline struct io_kiocb *worker_request(struct task_struct *task)
{
	struct io_worker___any *worker = BPF_CORE_READ(task, worker_private);
	struct io_wq_work *work;

	if (!worker || !bpf_core_field_exists(worker->cur_work))
		return NULL;
	work = BPF_CORE_READ(worker, cur_work);
	if (!work)
		return NULL;
	return (void *)((__u64)work - bpf_core_field_offset(struct io_kiocb, work));
}

#endif
