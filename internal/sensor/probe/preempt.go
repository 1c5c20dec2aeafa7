// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Preempts says whether the kernel preempts programs other than those of kprobes
// and classic tracepoints, which then miss what other threads do meanwhile.
func (h *Host) Preempts() bool { return h.preempts }

// CompatRungs see the end of each system call, for those through the 32-bit
// entry: by a BTF tracepoint, on kernels that preempt programs by a classic one.
// The BTF one does not run for other threads while it is held up, and although
// nearly all it misses are calls that it would pass over, nobody can tell.
func CompatRungs() []Rung {
	return []Rung{
		{Hook: "tracepoint/raw_syscalls/sys_exit", Programs: []string{"on_classic_compat_sys_exit"}, Requires: mustPreempt},
		{Hook: "tp_btf/sys_exit", Programs: []string{"on_compat_sys_exit"}},
	}
}

func mustPreempt(h *Host) error {
	if !h.preempts {
		return fmt.Errorf("%w: this kernel does not preempt programs", ErrHookMissing)
	}
	return nil
}

// preempts says whether threads may be preempted inside the kernel, and so
// inside a trampoline's program, which then does not run for other threads of
// that CPU. Kprobes run with preemption off.
func preempts(sysfs string) bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	// debugfs, for root where it is mounted
	mode, _ := os.ReadFile(filepath.Join(sysfs, "kernel/debug/sched/preempt"))
	return preemptible(unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Version[:]), string(mode))
}

// preemptible judges by uname(2) and the modes that kernel/sched/debug.c lists,
// the one in force in parentheses. Distributions that leave the mode open had
// voluntary preemption as their default until the 7 series gave it up.
func preemptible(release, version, modes string) bool {
	words := strings.Fields(version)
	for _, word := range words {
		switch word {
		case "PREEMPT", "PREEMPT_RT", "PREEMPT_LAZY":
			return true
		case "PREEMPT_DYNAMIC":
			if _, rest, found := strings.Cut(modes, "("); found {
				mode, _, _ := strings.Cut(rest, ")")
				return mode == "full" || mode == "lazy"
			}
			text, _, _ := strings.Cut(release, ".")
			major, err := strconv.Atoi(text)
			return err == nil && major >= 7
		}
	}
	return false
}
