//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Kernel modules loaded and unloaded, and io_uring instances made.
 */
#include "vmlinux.h"
#include "abi.h"
#include "compat.h"
#include "counters.h"
#include "events.h"
#include "processes.h"
#include "scope.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

COUNTER(kernel_module_total, MODULE_COUNT);
COUNTER(kernel_module_failures_total, MODULE_COUNT);
COUNTER(io_uring_setup_total, 1);

struct module_name {
	__u8 text[NAME_LEN];
};

/* By tid: the module that a thread's call is about, for the event. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct module_name);
} module_names SEC(".maps");

static __always_inline int name_module(const char *text)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct module_name name = {};

	if (!stream || !in_scope())
		return 0;
	bpf_probe_read_kernel_str(name.text, sizeof(name.text), text);
	if (bpf_map_update_elem(&module_names, &tid, &name, BPF_ANY))
		add(&map_evictions, TABLE_PENDING, 1);
	return 0;
}

static __noinline int report(enum module_action action, enum result result, struct module_name *name)
{
	struct event_with_texts *event = reserve(PROBE_KERNEL, EVENT_MODULE, true, sizeof(*event));

	if (event) {
		event->event.what = action;
		event->event.how = result;
		if (name) {
			/* not memcpy(), which takes the stack for bytes that may lie unaligned */
			bpf_probe_read_kernel(event->second, sizeof(name->text), name->text);
			event->event.lengths[1] = sizeof(name->text);
		}
		see_current(&event->event, has_current_btf());
		see_class(&event->event);
		see_executable((void *)event, has_current_btf());
		deliver(event, true, sizeof(*event));
	}
	return 0;
}

static __always_inline int leave(enum module_action action, long ret)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct module_name *name;

	if (!in_scope())
		return 0;
	if (ret < 0)
		add(&kernel_module_failures_total, action, 1);
	else
		add(&kernel_module_total, action, 1);
	if (!stream)
		return 0;
	name = bpf_map_lookup_elem(&module_names, &tid);
	report(action, ret < 0 ? RESULT_FAILURE : RESULT_SUCCESS, name);
	if (name)
		bpf_map_delete_elem(&module_names, &tid);
	return 0;
}

static __always_inline int count_ring(void)
{
	if (in_scope())
		add(&io_uring_setup_total, 0, 1);
	return 0;
}

/*
 * Classic tracepoints of the three calls, 4.7: the one place that knows both
 * the way a module came and whether it stayed. Not module_load alone: it runs
 * before the module's own init, which may refuse, and does not say from where.
 * Misses: 32-bit calls (on_compat_sys_exit). They exist only in kernels with
 * module support.
 */
SEC("tracepoint/syscalls/sys_exit_init_module")
int on_exit_init_module(struct syscall_trace_exit *exited)
{
	return leave(MODULE_LOAD, exited->ret);
}

SEC("tracepoint/syscalls/sys_exit_finit_module")
int on_exit_finit_module(struct syscall_trace_exit *exited)
{
	return leave(MODULE_LOAD_FILE, exited->ret);
}

SEC("tracepoint/syscalls/sys_exit_delete_module")
int on_exit_delete_module(struct syscall_trace_exit *exited)
{
	return leave(MODULE_UNLOAD, exited->ret);
}

/*
 * The same where the exits of system calls may not be watched: fexit on the
 * calls themselves, 32-bit ones included; 5.12 on amd64, 6.4 on arm64. Misses:
 * what seccomp refuses.
 */
FEXIT_CALL(init_module, CALL_FUNCTION "init_module", leave(MODULE_LOAD, ret))
FEXIT_CALL(finit_module, CALL_FUNCTION "finit_module", leave(MODULE_LOAD_FILE, ret))
FEXIT_CALL(delete_module, CALL_FUNCTION "delete_module", leave(MODULE_UNLOAD, ret))
#if defined(__TARGET_ARCH_x86)
FEXIT_CALL(compat_init_module, COMPAT_CALL_FUNCTION "init_module", leave(MODULE_LOAD, ret))
FEXIT_CALL(compat_finit_module, COMPAT_CALL_FUNCTION "finit_module", leave(MODULE_LOAD_FILE, ret))
FEXIT_CALL(compat_delete_module, COMPAT_CALL_FUNCTION "delete_module", leave(MODULE_UNLOAD, ret))
#endif

/*
 * tp_btf/module_load and tp_btf/module_free, 5.5: the module's name for the
 * event, inside the call. Misses: the name of a module that is refused before
 * it is laid out, or that another load of the same file is waited for.
 */
SEC("tp_btf/module_load")
int BPF_PROG(on_module_load, struct module *module)
{
	return name_module(module->name);
}

SEC("tp_btf/module_free")
int BPF_PROG(on_module_free, struct module *module)
{
	return name_module(module->name);
}

static __always_inline int left_compat_call(struct pt_regs *regs, long ret)
{
	if (!is_compat_call(regs))
		return 0;
	switch (syscall_number(regs)) {
	case COMPAT_INIT_MODULE:
		return leave(MODULE_LOAD, ret);
	case COMPAT_FINIT_MODULE:
		return leave(MODULE_LOAD_FILE, ret);
	case COMPAT_DELETE_MODULE:
		return leave(MODULE_UNLOAD, ret);
	}
	return 0;
}

/* tp_btf/sys_exit, 5.5: the same calls of 32-bit programs, once there is one. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_compat_sys_exit, struct pt_regs *regs, long ret)
{
	return left_compat_call(regs, ret);
}

/* The same with preemption off, for kernels that preempt the one above. 7.0 */
SEC("tracepoint/raw_syscalls/sys_exit")
int on_classic_compat_sys_exit(struct trace_event_raw_sys_exit *exited)
{
	return left_compat_call(saved_registers(), exited->ret);
}

/*
 * tp_btf/io_uring_create, 5.5: a ring that was made and handed out, whatever
 * entry it came by. Not the system call's exit, which misses 32-bit programs.
 * Misses: attempts that the kernel refused.
 */
SEC("tp_btf/io_uring_create")
int BPF_PROG(on_io_uring_create)
{
	return count_ring();
}

SEC("raw_tracepoint/io_uring_create")
int on_raw_io_uring_create(void *raw)
{
	return count_ring();
}

SEC("tracepoint/io_uring/io_uring_create")
int on_classic_io_uring_create(void *classic)
{
	return count_ring();
}
