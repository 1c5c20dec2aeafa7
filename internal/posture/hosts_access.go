// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/hosts.allow and /etc/hosts.deny (hosts_access(5),
// hosts_options(5)), and whether the daemons that used to obey them are still
// linked with libwrap: OpenSSH dropped it in 6.7, Debian patches it in, Red Hat
// removed it in RHEL 8.

// maxHostsPairs bounds the pairs of services and hosts in all rules.
const maxHostsPairs = 5000

// wrappedDaemons are the daemons that distributions link with libwrap; tcpd
// and xinetd guard others.
var wrappedDaemons = [...]struct{ name, paths string }{
	{"sshd", "/usr/sbin/sshd /usr/bin/sshd"}, {"tcpd", "/usr/sbin/tcpd"}, {"xinetd", "/usr/sbin/xinetd"},
	{"vsftpd", "/usr/sbin/vsftpd"}, {"rpcbind", "/usr/sbin/rpcbind /sbin/rpcbind"}, {"snmpd", "/usr/sbin/snmpd"},
	{"slapd", "/usr/sbin/slapd"}, {"exim4", "/usr/sbin/exim4"}, {"stunnel", "/usr/bin/stunnel4 /usr/bin/stunnel"},
	{"tftpd", "/usr/sbin/in.tftpd"},
}

type hostsAccess struct {
	info, effective, ignored *metric.Metric
	linked                   map[string]linkedState
}

// linkedState is what is known of one version of a program.
type linkedState struct {
	dev, ino uint64
	modTime  time.Time
	wrapped  bool
}

func hostsAccessCollector() Spec {
	names := make([]string, 0, len(wrappedDaemons))
	for _, d := range wrappedDaemons {
		names = append(names, d.name)
	}
	file := metric.Closed("file", "hosts.allow", "hosts.deny")
	c := &hostsAccess{
		linked: make(map[string]linkedState),
		info: metric.NewLegacy("linux_security_hosts_options_info", "Rule of hosts.allow and hosts.deny, one for each service and host; always 1.",
			file, metric.Open("service", "Pattern for the daemon, with what is excepted."),
			metric.Open("host", "Pattern for the client, with what is excepted."),
			metric.Closed("action", "allow", "deny", "twist", "aclexec")),
		effective: metric.NewState("linux_security_hosts_access_effective",
			"Whether the installed daemon is linked with libwrap, so that hosts.allow and hosts.deny count for it.",
			metric.Closed("service", names...)),
		ignored: metric.NewState("linux_security_hosts_access_ignored_lines",
			"Lines that libwrap ignores: without a colon, too long, or without a line feed at the end.", file),
	}
	return Spec{
		Name:    "hosts_access",
		Help:    "Rules of TCP wrappers, and for which daemons they count.",
		Metrics: []*metric.Metric{c.info, c.effective, c.ignored},
		Watch:   []string{"/etc/hosts.allow", "/etc/hosts.deny"},
		Collect: c.collect,
	}
}

func (c *hostsAccess) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	var problems []error
	found := false
	pairs := 0
	for _, file := range [...]string{"hosts.allow", "hosts.deny"} {
		b, err := in.Rootfs.ReadLimit(ctx, "/etc/"+file, 1<<20)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		found = true
		if err != nil {
			problems = append(problems, err)
			continue
		}
		rules, ignored := parseHosts(b, file == "hosts.allow")
		out.Add(c.ignored, float64(ignored), file)
		for _, r := range rules {
			if pairs += len(r.services) * len(r.hosts); pairs > maxHostsPairs {
				problems = append(problems, fmt.Errorf("/etc/%s line %d: more than %d pairs of services and hosts: the rules from here on are not shown", file, r.line, maxHostsPairs))
				break
			}
			c.add(out, file, r)
		}
	}
	if !found {
		return ErrNotApplicable
	}
	for _, d := range wrappedDaemons {
		wrapped, err := c.isWrapped(ctx, in.Rootfs, d.paths)
		if err != nil {
			problems = append(problems, unlessMissing(err))
			continue
		}
		out.Bool(c.effective, wrapped, d.name)
	}
	return Partial(errors.Join(problems...))
}

func (c *hostsAccess) add(out *metric.Batch, file string, r hostsRule) {
	for _, service := range r.services {
		for _, host := range r.hosts {
			out.Add(c.info, 1, file, service, host, r.action)
		}
	}
}

// isWrapped is whether the first program that exists needs libwrap.
// ErrNotExist means that none is installed.
func (c *hostsAccess) isWrapped(ctx context.Context, root *hostfs.Tree, paths string) (bool, error) {
	for name := range strings.FieldsSeq(paths) {
		st, err := root.Stat(ctx, name)
		if unlessMissing(err) == nil && err != nil {
			continue
		}
		if err != nil {
			return false, err
		}
		if known, ok := c.linked[name]; ok && known.dev == st.Dev && known.ino == st.Ino && known.modTime.Equal(st.ModTime) {
			return known.wrapped, nil
		}
		wrapped, err := needsLibrary(ctx, root, name, "libwrap.so")
		if err == nil {
			c.linked[name] = linkedState{st.Dev, st.Ino, st.ModTime, wrapped}
		}
		return wrapped, err
	}
	return false, hostfs.ErrNotExist
}

// needsLibrary is whether an ELF file has a DT_NEEDED entry that begins with
// library (elf(5)).
func needsLibrary(ctx context.Context, root *hostfs.Tree, name, library string) (bool, error) {
	f, err := root.Open(ctx, name)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	image, err := elf.NewFile(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	needed, err := image.DynString(elf.DT_NEEDED)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	for _, n := range needed {
		if strings.HasPrefix(n, library) {
			return true, nil
		}
	}
	return false, nil
}
