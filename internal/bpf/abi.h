/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the BPF programs and Go: every number and every struct
 * that crosses the border. Go types are generated from this page (abi/), so
 * an order given here is the order of the label values and of the counter
 * arrays; nothing re-types it.
 */
#ifndef ABI_H
#define ABI_H

enum probe_id {
	PROBE_PROCESS,
	PROBE_NETWORK,
	PROBE_FILE,
	PROBE_PRIVILEGE,
	PROBE_KERNEL,
	PROBE_COUNT,
};

enum process_class {
	CLASS_SYSTEM,
	CLASS_USER,
	CLASS_CONTAINER,
	CLASS_SUSPICIOUS,
	CLASS_COUNT,
};

enum direction { DIRECTION_IN, DIRECTION_OUT, DIRECTION_COUNT };
enum transport { TRANSPORT_TCP, TRANSPORT_UDP, TRANSPORT_COUNT };

enum connect_error {
	CONNECT_ERROR_TIMEOUT,
	CONNECT_ERROR_REFUSED,
	CONNECT_ERROR_RESET,
	CONNECT_ERROR_COUNT,
};

/* SEVERITY_COUNT also stands for "this operation is not counted". */
enum file_severity {
	SEVERITY_CRITICAL,
	SEVERITY_WARNING,
	SEVERITY_INFO,
	SEVERITY_COUNT,
};

enum file_operation { OPERATION_READ, OPERATION_WRITE, OPERATION_COUNT };

enum privilege_call {
	PRIVILEGE_SETUID,
	PRIVILEGE_SETGID,
	PRIVILEGE_CAPSET,
	PRIVILEGE_SUID_EXEC,
	PRIVILEGE_FILECAP_EXEC,
	PRIVILEGE_COUNT,
};

enum result { RESULT_SUCCESS, RESULT_FAILURE, RESULT_COUNT };

enum privilege_gain {
	GAIN_SET_ID,
	GAIN_CAPSET,
	GAIN_SUID_EXEC,
	GAIN_FILECAP_EXEC,
	GAIN_USERNS,
	GAIN_OTHER,
	GAIN_COUNT,
};

enum module_action {
	MODULE_LOAD,
	MODULE_LOAD_FILE,
	MODULE_UNLOAD,
	MODULE_COUNT,
};

enum loss {
	LOSS_RING_FULL,
	LOSS_BUDGET,
	LOSS_DECODE,
	LOSS_RECURSION,
	LOSS_COUNT,
};

/* Bounded tables; what does not fit is counted by this. */
enum table {
	TABLE_PROCESSES,
	TABLE_SOCKETS,
	TABLE_FLOWS,
	TABLE_PENDING,
	TABLE_THREADS,
	TABLE_COUNT,
};

/* Who reads a ring of events. */
enum event_reader {
	READER_FREQUENT,
	READER_SERIOUS,
	READER_COUNT,
};

/* Event kinds: one for each counter that can produce detail. */
enum event_kind {
	EVENT_EXEC,
	EVENT_EXIT,
	EVENT_CONNECT,
	EVENT_CONNECT_ERROR,
	EVENT_FILE,
	EVENT_PRIVILEGE,
	EVENT_GAIN,
	EVENT_MODULE,
	EVENT_COUNT,
};

/* TEXT_LEN holds a path whose last 255 bytes are not cut, and ARGUMENTS_MAX bytes. */
enum text_length { COMM_LEN = 16, NAME_LEN = 64, TEXT_LEN = 512, ARGUMENTS_MAX = 256 };

enum no_value {
	NO_CLASS = 0xff,    /* the event belongs to no thread group that is known */
	NO_ID = 0xffffffff, /* (uid_t)-1: no id at all */
};

/* Places in the table of thread groups: see processes.h. */
enum process_limit {
	PROCESS_SLOTS = 65536,
	PROCESSES_BESIDE_SLOTS = 32768,
	PROCESSES_WITHOUT_SLOTS = 65536,
};

/* Places in the table of TCP connections: see sockets.h. */
enum socket_limit {
	SOCKET_SET_BITS = 14,
	SOCKET_SETS = 1 << SOCKET_SET_BITS,
	SOCKET_WAYS = 4,
	SOCKETS_BESIDE_SETS = 32768,
	SOCKETS_WITHOUT_SETS = 65536,
};

/* A thread group, keyed by tgid in the shared table. */
struct process {
	__u64 cgroup_id; /* at the last exec or fork; v2 only */
	__u64 seen_caps; /* effective capabilities last seen */
	__u32 seen_euid; /* effective uid last seen */
	__u8 class;	 /* enum process_class */
	__u8 contained;	 /* cgroup_id is a container's */
	__u8 apart;	 /* a thread had other credentials: see threads.h */
	__u8 pad;
};

/* A place of the table for the one thread group whose id ends like its index. */
struct process_slot {
	__u32 tgid; /* 0: free */
	__u32 pad;
	struct process process;
};

/*
 * One detail event. What `what` and `how` hold depends on the kind: connect:
 * direction, transport; connect error: the error, transport; file: severity,
 * operation; privilege: call, result; gain: how; module: action, result.
 */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup_id;
	__u64 legacy_cgroup_id; /* in a version 1 hierarchy; 0: there is none */
	__u64 old_caps;		/* gain: effective capabilities before and after */
	__u64 new_caps;
	__u32 tgid;
	__u32 tid;
	__u32 parent; /* thread group */
	__u32 uid;
	__u32 euid;
	__u32 loginuid;
	__u32 weight; /* how many events this one stands for */
	__u32 old_id; /* privilege, gain: effective ids before and after */
	__u32 new_id;
	__u16 port;	  /* of the peer */
	__u16 lengths[2]; /* of the texts behind this struct */
	__u8 kind;	  /* enum event_kind */
	__u8 probe;	  /* enum probe_id */
	__u8 class;	  /* enum process_class of the thread group */
	__u8 what;
	__u8 how;
	__u8 truncated;	  /* one bit for each text that is not whole */
	__u8 address[16]; /* of the peer; IPv4 as ::ffff:a.b.c.d */
	__u8 comm[COMM_LEN];
};

/*
 * What stands behind the struct in the ring. A path is its components from the
 * last to the first, each with a zero byte at its end. The second text is the
 * path of the file (file), the module's name, or the arguments (exec).
 */
struct event_with_executable {
	struct event event;
	__u8 executable[TEXT_LEN];
};

struct event_with_texts {
	struct event event;
	__u8 executable[TEXT_LEN];
	__u8 second[TEXT_LEN];
};

/* One watched file system object: the kernel's own identity of an inode. */
struct object {
	__u64 inode;
	__u32 device;
	__u32 generation;
};

/* What a match costs: severities for a read and for a write. */
struct watch {
	__u8 read;  /* enum file_severity */
	__u8 write; /* enum file_severity */
	__u8 pad[2];
};

/* A name in a watched directory. */
struct name {
	__u32 directory;
	__u8 text[NAME_LEN];
};

/*
 * A watched directory: what applies to each entry (any), and which patterns
 * stand for it from first_pattern on.
 */
struct directory {
	struct watch any; /* SEVERITY_COUNT twice when there is no such rule */
	__u32 first_pattern;
	__u32 patterns;
};

/*
 * A glob for the names in a directory: prefix bytes, then suffix bytes, with
 * anything between them if there is a star. A ? stands for any byte.
 */
struct pattern {
	__u8 text[NAME_LEN];
	struct watch watch;
	__u8 prefix;
	__u8 suffix;
	__u8 star;
	__u8 pad;
};

/* Sizes of the tables of the file probe, for Go to check its rules against. */
enum watch_limit {
	WATCH_OBJECTS = 4096,
	WATCH_DIRECTORIES = 1024,
	WATCH_NAMES = 4096,
	WATCH_PATTERNS = 512,
	WATCH_DIRECTORY_PATTERNS = 16,
	WATCH_DEPTH = 16,
	WATCH_FILTER_BITS = 65536,
};

/* What iter/task_file reports of one descriptor of the exporter's own. */
struct identity {
	struct object object;
	__u32 fd;
	__u32 pad;
};

#endif
