// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads the values below /proc/sys and what sysctl.d(5) says they should be.
// net.* is that of the exporter's network namespace.

type sysctl struct {
	secure, value, compliant, drift, interfaces *metric.Metric
}

func sysctlCollector() Spec {
	param := metric.Open("param", "Dotted name of the kernel parameter.")
	c := &sysctl{
		secure: metric.NewLegacy("linux_security_sysctl_param_secure",
			"Whether the kernel parameter equals the expected value.",
			param, metric.Open("name", "The expected value.")),
		value: metric.NewState("linux_security_sysctl_value",
			"Value of the kernel parameter, if it is one number, in its own unit.", param),
		compliant: metric.NewState("linux_security_sysctl_compliant",
			"Whether the kernel parameter has one of the values that are good, or the one the configuration expects.", param),
		drift: metric.NewState("linux_security_sysctl_drift",
			"Whether the kernel parameter differs from what sysctl.d sets; absent if nothing there sets it.", param),
		interfaces: metric.NewState("linux_security_sysctl_interfaces_noncompliant",
			"Network interfaces on which the setting, as the kernel combines it with that for all, is not good.",
			metric.Closed("setting", interfaceSettingNames()...)),
	}
	return Spec{
		Name:    "sysctl",
		Help:    "Kernel parameters: value, expectation and drift from sysctl.d.",
		Metrics: []*metric.Metric{c.secure, c.value, c.compliant, c.drift, c.interfaces},
		Watch: []string{
			"/etc/sysctl.conf", "/etc/sysctl.d/*.conf", "/run/sysctl.d/*.conf",
			"/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf",
		},
		Judges:  true,
		Collect: c.collect,
	}
}

func (c *sysctl) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	if _, err := in.Procfs.Stat(ctx, "/sys"); err != nil {
		return err
	}
	settings, err := readSysctlFiles(ctx, in.Rootfs)
	problems := []error{err}
	for _, p := range expectedParams(in.Settings.Sysctl) {
		now, err := readSysctl(ctx, in.Procfs, p.name)
		if errors.Is(err, hostfs.ErrNotExist) || p.name == jitHarden && errors.Is(err, hostfs.ErrPermission) {
			continue
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c.add(out, p, now)
		if want, ok := configuredSysctl(settings, p.name); ok {
			out.Bool(c.drift, now != want, p.name)
		}
	}
	problems = append(problems, c.addInterfaces(ctx, in.Procfs, out))
	return Partial(errors.Join(problems...))
}

func (c *sysctl) add(out *metric.Batch, p sysctlParam, now string) {
	if n, err := strconv.ParseInt(now, 10, 64); err == nil {
		out.Add(c.value, float64(n), p.name)
	}
	if len(p.good) > 0 {
		out.Bool(c.secure, now == p.good[0], p.name, p.good[0])
		out.Bool(c.compliant, slices.Contains(p.good, now), p.name)
	}
}

// jitHarden takes CAP_SYS_ADMIN to read (bpf_jit_harden in
// Documentation/admin-guide/sysctl/net.rst), which is far too much for one
// number: without it there are no series.
const jitHarden = "net.core.bpf_jit_harden"

// readSysctl returns the running value of a dotted name.
func readSysctl(ctx context.Context, proc *hostfs.Tree, name string) (string, error) {
	file, ok := sysctlPath(name)
	if !ok {
		return "", fmt.Errorf("kernel parameter %q: not a name below /proc/sys: correct the configuration", name)
	}
	v, err := proc.ReadValue(ctx, "/sys/"+file)
	return sysctlValue(v), err
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
