//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* No program: the types of abi.h, for the Go generator to find. */
#include "vmlinux.h"
#include "abi.h"

char LICENSE[] __attribute__((section("license"), used)) = "Dual BSD/GPL";

struct keep {
	enum probe_id probe;
	enum process_class class;
	enum direction direction;
	enum transport transport;
	enum connect_error connect_error;
	enum file_severity severity;
	enum file_operation operation;
	enum privilege_call privilege;
	enum result result;
	enum privilege_gain gain;
	enum module_action module;
	enum loss loss;
	enum event_reader event_reader;
	enum table table;
	enum event_kind kind;
	enum watch_limit watch_limit;
	enum process_limit process_limit;
	enum socket_limit socket_limit;
	enum text_length text_length;
	enum no_value no_value;
	struct process process;
	struct process_slot process_slot;
	struct event event;
	struct event_with_executable event_with_executable;
	struct event_with_texts event_with_texts;
	struct object object;
	struct watch watch;
	struct name name;
	struct directory directory;
	struct pattern pattern;
	struct identity identity;
};

struct keep keep;
