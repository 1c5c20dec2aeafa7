// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// maxInterfaces is how many network interfaces are read for each family. A
// node with thousands of pods has as many, all made from the same template.
const maxInterfaces = 64

// interfaceSetting is a setting that exists for all interfaces together and
// for each. combine is what the kernel makes of the two: the IN_DEV_* macros
// of include/linux/inetdevice.h, and net/ipv6 for IPv6.
type interfaceSetting struct {
	name, family, key string
	combine           func(all, one int64, forwards bool) int64
	good              func(effective int64) bool
}

func interfaceSettings() []interfaceSetting {
	off := func(v int64) bool { return v == 0 }
	on := func(v int64) bool { return v != 0 }
	either := func(all, one int64, _ bool) int64 { return all | one }
	both := func(all, one int64, _ bool) int64 { return min(all, one) }
	own := func(_, one int64, _ bool) int64 { return one }
	redirects := func(all, one int64, forwards bool) int64 {
		if forwards {
			return min(all, one)
		}
		return all | one
	}
	return []interfaceSetting{
		{"ipv4_accept_redirects", "ipv4", "accept_redirects", redirects, off},
		{"ipv4_secure_redirects", "ipv4", "secure_redirects", either, off},
		{"ipv4_send_redirects", "ipv4", "send_redirects", either, off},
		{"ipv4_accept_source_route", "ipv4", "accept_source_route", both, off},
		{"ipv4_rp_filter", "ipv4", "rp_filter", func(all, one int64, _ bool) int64 { return max(all, one) }, on},
		{"ipv4_log_martians", "ipv4", "log_martians", either, on},
		{"ipv6_accept_redirects", "ipv6", "accept_redirects", own, off},
		// Negative means none at all; the lower of the two counts.
		{"ipv6_accept_source_route", "ipv6", "accept_source_route", both, func(v int64) bool { return v <= 0 }},
		{"ipv6_accept_ra", "ipv6", "accept_ra", own, off},
		// ip_forward sets that of all interfaces, and each may be set after it.
		{"ipv4_forwarding", "ipv4", "forwarding", own, off},
		{"ipv6_force_forwarding", "ipv6", "force_forwarding", own, off},
	}
}

// expected is whether a host should have the setting good: not if the
// configuration expects another value of it for all interfaces.
func (s interfaceSetting) expected(wanted map[string]string) bool {
	all := []string{"net." + s.family + ".conf.all." + s.key}
	if s.name == "ipv4_forwarding" {
		all = append(all, "net.ipv4.ip_forward")
	}
	for name, value := range wanted {
		n, err := strconv.ParseInt(sysctlValue(value), 10, 64)
		if err == nil && slices.Contains(all, sysctlName(name)) && !s.good(n) {
			return false
		}
	}
	return true
}

func interfaceSettingNames() []string {
	var out []string
	for _, s := range interfaceSettings() {
		out = append(out, s.name)
	}
	return out
}

// addInterfaces counts, for each setting, the interfaces that are not good. A
// family that the kernel does not have has no series.
func (c *sysctl) addInterfaces(ctx context.Context, proc *hostfs.Tree, out *metric.Batch) error {
	var problems []error
	for _, family := range []string{"ipv4", "ipv6"} {
		dir := interfaceDir(family)
		names, err := interfaceNames(ctx, proc, family)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		problems = append(problems, err)
		for _, s := range interfaceSettings() {
			if s.family != family {
				continue
			}
			bad, err := s.count(ctx, proc, dir, names)
			if errors.Is(err, hostfs.ErrNotExist) {
				continue
			}
			if err != nil {
				problems = append(problems, err)
				continue
			}
			out.Add(c.interfaces, float64(bad), s.name)
		}
	}
	return errors.Join(problems...)
}

func interfaceDir(family string) string { return "/sys/net/" + family + "/conf/" }

// interfaceNames lists the first maxInterfaces interfaces but lo.
func interfaceNames(ctx context.Context, proc *hostfs.Tree, family string) ([]string, error) {
	entries, err := proc.ReadDir(ctx, interfaceDir(family))
	var names []string
	for _, e := range entries {
		if e.Name != "all" && e.Name != "default" && e.Name != "lo" && len(names) < maxInterfaces {
			names = append(names, e.Name)
		}
	}
	return names, err
}

// count reads one setting of each interface; one that has gone is skipped.
func (s interfaceSetting) count(ctx context.Context, proc *hostfs.Tree, dir string, names []string) (bad int, err error) {
	all, err := readNumber(ctx, proc, dir+"all/"+s.key)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		one, err := readNumber(ctx, proc, dir+name+"/"+s.key)
		var forwards int64
		if err == nil && s.key == "accept_redirects" {
			forwards, err = readNumber(ctx, proc, dir+name+"/forwarding")
		}
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if !s.good(s.combine(all, one, forwards != 0)) {
			bad++
		}
	}
	return bad, nil
}

func readNumber(ctx context.Context, proc *hostfs.Tree, file string) (int64, error) {
	v, err := proc.ReadValue(ctx, file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(v, 10, 64)
}
