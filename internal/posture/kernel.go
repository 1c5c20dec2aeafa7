// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads, each on its own and none of them on every kernel:
//   - /sys/kernel/security/lsm and lockdown (kernel_lockdown(7))
//   - /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst)
//   - /sys/firmware/efi/efivars/SecureBoot-*, SetupMode-* (UEFI 2.10, 3.3)
//   - /sys/devices/system/cpu/vulnerabilities/* (Documentation/ABI/testing/
//     sysfs-devices-system-cpu)
//   - /sys/module/module/parameters/sig_enforce
//   - /proc/cmdline (bootparam(7))

// lsmNames are the security modules of the kernel up to 6.18, in its order.
var lsmNames = []string{
	"capability", "landlock", "lockdown", "yama", "loadpin", "safesetid", "selinux", "smack", "tomoyo", "apparmor",
	"ipe", "bpf", "integrity", "ima", "evm",
}

var lockdownStates = []string{"none", "integrity", "confidentiality"}

// taintFlags are the reasons for a tainted kernel; the position is the bit.
var taintFlags = []string{
	"proprietary_module", "forced_module", "cpu_out_of_spec", "forced_rmmod", "machine_check", "bad_page",
	"user_request", "oops", "overridden_acpi_table", "warning", "staging_driver", "firmware_workaround",
	"external_module", "unsigned_module", "soft_lockup", "live_patch", "auxiliary", "randstruct", "test", "fwctl",
}

type kernel struct {
	lockdown, lsm, taint, tainted, secureBoot, vulnerability, signature, flag *metric.Metric
}

func kernelCollector() Spec {
	state := metric.NewState
	c := &kernel{
		lockdown: state("linux_security_kernel_lockdown_state",
			"Whether the kernel is locked down to this degree.", metric.Closed("state", lockdownStates...)),
		lsm: state("linux_security_lsm_enabled",
			"Whether the kernel runs the security module.", metric.Closed("lsm", lsmNames...)),
		taint: state("linux_security_kernel_taint",
			"Whether the kernel is tainted for this reason.", metric.Closed("flag", taintFlags...)),
		tainted: state("linux_security_kernel_tainted_flags",
			"All reasons why the kernel is tainted, as the bits of /proc/sys/kernel/tainted; 0 is not tainted."),
		secureBoot: state("linux_security_secure_boot_enabled",
			"Whether the firmware checked what it started; absent on a host not started by UEFI."),
		vulnerability: state("linux_security_cpu_vulnerability_info",
			"State of a flaw of the processor, as the kernel sums it up; always 1.",
			metric.Open("codename", "Name of the file below /sys/devices/system/cpu/vulnerabilities."),
			metric.Closed("state", vulnerabilityStates...)),
		signature: state("linux_security_module_signature_enforced",
			"Whether the kernel refuses modules without a valid signature."),
		flag: state("linux_security_kernel_cmdline_flag",
			"Parameter that the kernel was started with; always 1, absent if it was not.", metric.Closed("flag", cmdlineFlags...)),
	}
	return Spec{
		Name:    "kernel",
		Help:    "Lockdown, security modules, taint, Secure Boot, processor flaws and boot parameters.",
		Metrics: []*metric.Metric{c.lockdown, c.lsm, c.taint, c.tainted, c.secureBoot, c.vulnerability, c.signature, c.flag},
		Collect: c.collect,
	}
}

// collect runs every part; one that the kernel does not have adds nothing.
func (c *kernel) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	var problems []error
	for _, part := range []func(context.Context, *Input, *metric.Batch) error{
		c.addLSM, c.addLockdown, c.addTaint, c.addSecureBoot, c.addVulnerabilities, c.addCmdline,
	} {
		if err := part(ctx, in, out); err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return Partial(errors.Join(problems...))
}

func (c *kernel) addLSM(ctx context.Context, in *Input, out *metric.Batch) error {
	list, err := in.Sysfs.ReadValue(ctx, "/kernel/security/lsm")
	if err != nil {
		return err
	}
	enabled := strings.Split(list, ",")
	for _, name := range lsmNames {
		out.Bool(c.lsm, slices.Contains(enabled, name), name)
	}
	return nil
}

// addLockdown adds the state, and whether modules need a signature: lockdown
// demands one, and so does a parameter of the kernel.
func (c *kernel) addLockdown(ctx context.Context, in *Input, out *metric.Batch) error {
	text, err := in.Sysfs.ReadValue(ctx, "/kernel/security/lockdown")
	locked := parseLockdown(text)
	if locked != "" {
		out.OneOf(c.lockdown, locked)
	}
	if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
		return err
	}
	enforce, err := in.Sysfs.ReadValue(ctx, "/module/module/parameters/sig_enforce")
	if err == nil {
		out.Bool(c.signature, enforce == "Y" || locked != "" && locked != "none")
	}
	return err
}

// parseLockdown returns the state in brackets, "" if it is none that is known.
func parseLockdown(text string) string {
	_, text, _ = strings.Cut(text, "[")
	state, _, ok := strings.Cut(text, "]")
	if !ok || !slices.Contains(lockdownStates, state) {
		return ""
	}
	return state
}

func (c *kernel) addTaint(ctx context.Context, in *Input, out *metric.Batch) error {
	text, err := in.Procfs.ReadValue(ctx, "/sys/kernel/tainted")
	if err != nil {
		return err
	}
	bits, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("/proc/sys/kernel/tainted: %w", err)
	}
	out.Add(c.tainted, float64(bits))
	for bit, flag := range taintFlags {
		out.Bool(c.taint, bits>>bit&1 == 1, flag)
	}
	return nil
}

// efiGlobal is the GUID of the variables that UEFI defines itself.
const efiGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// addSecureBoot: in setup mode the firmware accepts new keys from anyone, so
// what it checks then proves nothing.
func (c *kernel) addSecureBoot(ctx context.Context, in *Input, out *metric.Batch) error {
	secure, err := efiFlag(ctx, in.Sysfs, "SecureBoot")
	if err != nil {
		return err
	}
	setup, err := efiFlag(ctx, in.Sysfs, "SetupMode")
	if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
		return err
	}
	out.Bool(c.secureBoot, secure && !setup)
	return nil
}

// efiFlag reads a variable of one byte; four bytes of attributes come first.
func efiFlag(ctx context.Context, sys *hostfs.Tree, name string) (bool, error) {
	file := "/firmware/efi/efivars/" + name + "-" + efiGlobal
	b, err := sys.ReadLimit(ctx, file, hostfs.ValueLimit)
	if err != nil {
		return false, err
	}
	if len(b) != 5 {
		return false, fmt.Errorf("/sys%s: %d bytes, not 5", file, len(b))
	}
	return b[4] == 1, nil
}

var vulnerabilityStates = []string{"not_affected", "mitigation", "vulnerable", "unknown"}

func (c *kernel) addVulnerabilities(ctx context.Context, in *Input, out *metric.Batch) error {
	files, err := in.Sysfs.Glob(ctx, "/devices/system/cpu/vulnerabilities/*")
	problems := []error{err}
	for _, file := range files {
		text, err := in.Sysfs.ReadValue(ctx, file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out.Add(c.vulnerability, 1, path.Base(file), vulnerabilityState(text))
	}
	return errors.Join(problems...)
}

// vulnerabilityState is the kernel's own verdict, which its text starts with.
// What follows may name a part that stays open, such as "SMT vulnerable".
func vulnerabilityState(text string) string {
	text = strings.TrimPrefix(text, "KVM: ")
	for _, s := range []struct{ prefix, state string }{
		{"Not affected", "not_affected"}, {"Mitigation", "mitigation"},
		{"Vulnerable", "vulnerable"}, {"Processor vulnerable", "vulnerable"},
	} {
		if strings.HasPrefix(text, s.prefix) {
			return s.state
		}
	}
	return "unknown"
}
