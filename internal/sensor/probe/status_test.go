// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What kernels under lockdown=confidentiality say is denied, and no error of
// the programs.
func TestLockdownIsDenied(t *testing.T) {
	t.Parallel()
	refused := func(line string) error {
		return fmt.Errorf("load: %w", &ebpf.VerifierError{Cause: unix.EINVAL, Log: []string{"0: R1=ctx(off=0)", line, "processed 9 insns"}})
	}
	denied, failed := Status{State: Denied, Reason: ReasonNoPermission}, Status{State: Failed, Reason: ReasonVerifier}
	for line, want := range map[string]Status{
		"unknown func bpf_probe_read#4":                                        denied,
		"unknown func bpf_probe_read_kernel#113":                               denied,
		"program of this type cannot use helper bpf_probe_read_kernel_str#115": denied,
		"program of this type cannot use helper bpf_get_current_task_btf#158":  failed,
		"R1 type=ctx expected=fp, in a call of bpf_probe_read_kernel#113":      failed,
		"invalid func unknown#65535":                                           failed,
	} {
		if got := statusOf(explain(refused(line))); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}
