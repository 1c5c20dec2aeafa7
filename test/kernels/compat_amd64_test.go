// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// The first 32-bit program has the exporter look at calls through the 32-bit
// entry, long after it has let go of the kernel's types.
func TestFirst32Bit(t *testing.T) {
	e := startExporter(t, nil, "--ebpf.probes=process,privilege")
	testkit.Require32Bit(t)
	// of no groups, which better hooks than those on system calls do not see
	const setgroups, n, series = 206, 20, `security_ebpf_privilege_escalation_total{result="success",type="setgid"}`
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, testkit.Image32(setgroups, setgroups), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func() {
		if err := exec.Command(program).Run(); err != nil {
			t.Fatal(err)
		}
	}
	before := e.number(t, series)
	for deadline := time.Now().Add(5 * time.Minute); e.number(t, series) < before+2; run() {
		if time.Now().After(deadline) {
			t.Fatal("five minutes after the first 32-bit program its calls are not seen")
		}
		time.Sleep(100 * time.Millisecond)
	}
	before = e.number(t, series)
	for range n {
		run()
	}
	if counted := e.number(t, series) - before; counted != 2*n {
		t.Errorf("%v calls of 32-bit programs, want %d", counted, 2*n)
	}
}
