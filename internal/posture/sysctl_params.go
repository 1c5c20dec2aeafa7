// SPDX-License-Identifier: Apache-2.0

package posture

import "strings"

// sysctlParam is one kernel parameter with the values that are good, best
// first. Names are dotted as in sysctl.d(5). What each value means is in
// Documentation/admin-guide/sysctl and Documentation/networking/ip-sysctl.rst
// of the kernel, Documentation/admin-guide/LSM/Yama.rst for ptrace_scope.
type sysctlParam struct {
	name string
	good []string
}

// sysctlParams is the built-in list. Values that only a distribution's kernel
// has (unprivileged_userns_clone, perf_event_paranoid 3) are in it too: where
// a parameter is missing there is no series.
func sysctlParams() []sysctlParam {
	return []sysctlParam{
		{"kernel.randomize_va_space", []string{"2"}},
		{"kernel.dmesg_restrict", []string{"1"}},
		{"kernel.kptr_restrict", []string{"2", "1"}},
		{"kernel.yama.ptrace_scope", []string{"1", "2", "3"}},
		{"kernel.unprivileged_bpf_disabled", []string{"1", "2"}},
		{"net.core.bpf_jit_harden", []string{"2"}},
		{"kernel.unprivileged_userns_clone", []string{"0"}},
		{"kernel.apparmor_restrict_unprivileged_userns", []string{"1"}},
		{"kernel.kexec_load_disabled", []string{"1"}},
		{"kernel.modules_disabled", []string{"1"}},
		{"kernel.sysrq", []string{"0"}},
		{"kernel.perf_event_paranoid", []string{"3", "2", "4"}},
		{"kernel.io_uring_disabled", []string{"2", "1"}},
		{"vm.unprivileged_userfaultfd", []string{"0"}},
		{"vm.mmap_min_addr", []string{"65536"}},
		{"dev.tty.ldisc_autoload", []string{"0"}},
		{"fs.protected_hardlinks", []string{"1"}},
		{"fs.protected_symlinks", []string{"1"}},
		{"fs.protected_fifos", []string{"2", "1"}},
		{"fs.protected_regular", []string{"2", "1"}},
		{"fs.suid_dumpable", []string{"0", "2"}},
		{"net.ipv4.ip_forward", []string{"0"}},
		{"net.ipv4.tcp_syncookies", []string{"1"}},
		{"net.ipv4.icmp_echo_ignore_broadcasts", []string{"1"}},
		{"net.ipv4.icmp_ignore_bogus_error_responses", []string{"1"}},
		{"net.ipv4.conf.all.rp_filter", []string{"1", "2"}},
		{"net.ipv4.conf.default.rp_filter", []string{"1", "2"}},
		{"net.ipv4.conf.all.accept_redirects", []string{"0"}},
		{"net.ipv4.conf.default.accept_redirects", []string{"0"}},
		{"net.ipv4.conf.all.secure_redirects", []string{"0"}},
		{"net.ipv4.conf.all.send_redirects", []string{"0"}},
		{"net.ipv4.conf.default.send_redirects", []string{"0"}},
		{"net.ipv4.conf.all.accept_source_route", []string{"0"}},
		{"net.ipv4.conf.default.accept_source_route", []string{"0"}},
		{"net.ipv4.conf.all.log_martians", []string{"1"}},
		{"net.ipv6.conf.all.forwarding", []string{"0"}},
		{"net.ipv6.conf.all.accept_redirects", []string{"0"}},
		{"net.ipv6.conf.default.accept_redirects", []string{"0"}},
		{"net.ipv6.conf.all.accept_source_route", []string{"0"}},
		{"net.ipv6.conf.all.accept_ra", []string{"0"}},
		{"net.ipv6.conf.default.accept_ra", []string{"0"}},
	}
}

// expectedParams is the list with what the user expects in place of it.
// Parameters that only the user names come last, by name.
func expectedParams(wanted map[string]string) []sysctlParam {
	rest := make(map[string]string, len(wanted))
	for name, value := range wanted {
		rest[sysctlName(name)] = sysctlValue(value)
	}
	params := sysctlParams()
	for i, p := range params {
		if value, ok := rest[p.name]; ok {
			params[i].good = goodValues(value)
			delete(rest, p.name)
		}
	}
	for _, name := range sortedKeys(rest) {
		params = append(params, sysctlParam{name, goodValues(rest[name])})
	}
	return params
}

func goodValues(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// sysctlName returns the dotted form of a name, in which a dot that belongs
// to a component (net.ipv4.conf.eth0/7.forwarding) is a slash. If the first
// separator is a slash the name is a path below /proc/sys (sysctl.d(5)).
func sysctlName(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return swapSeparators(strings.Trim(name, "/"))
	}
	return name
}

// sysctlPath is the path below /proc/sys of a dotted name; ok is false for a
// name that would leave it.
func sysctlPath(name string) (path string, ok bool) {
	path = swapSeparators(name)
	for c := range strings.SplitSeq(path, "/") {
		if c == "" || c == "." || c == ".." {
			return "", false
		}
	}
	return path, true
}

func swapSeparators(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}

// sysctlValue makes values comparable: the kernel separates several by tabs,
// files by blanks.
func sysctlValue(s string) string { return strings.Join(strings.Fields(s), " ") }
