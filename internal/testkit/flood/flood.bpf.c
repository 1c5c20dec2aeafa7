//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Events that nothing caused, for tests of the detail stream: more of them than
 * a machine can execute programs. They pass the same reserve() and deliver().
 */
#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct flood {
	__u32 events;
	__u32 keys;
};

enum { NAME_DIGITS = 5, FIRST_TGID = 1 << 22 /* above any real one */ };

static long one(__u32 i, struct flood *flood)
{
	struct event_with_executable *event = reserve(PROBE_PROCESS, EVENT_EXEC, false, sizeof(*event));
	__u32 key = i % (flood->keys ?: 1), digit;

	if (!event)
		return 0;
	event->event.tgid = event->event.tid = FIRST_TGID + key;
	event->event.class = CLASS_SYSTEM;
	for (digit = 0; digit < NAME_DIGITS; digit++, key /= 10)
		event->executable[digit] = event->event.comm[digit] = '0' + key % 10;
	event->executable[NAME_DIGITS] = 0;
	event->event.lengths[0] = NAME_DIGITS + 1;
	deliver(event, false, sizeof(*event));
	return 0;
}

/* bpf_loop() is there since 5.17. */
SEC("syscall")
int on_flood(struct flood *flood)
{
	struct flood how = *flood;

	bpf_loop(how.events, one, &how, 0);
	return 0;
}
