/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The process table, shared by all objects: what is known of each live thread
 * group. The process probe keeps it; the others read the class, and the
 * privilege probe keeps the credentials last seen.
 */
#ifndef PROCESSES_H
#define PROCESSES_H

#include "vmlinux.h"
#include "abi.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

#endif
