// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"

	"security-exporter/internal/metric"
)

// Reads /proc/1/mountinfo (proc_pid_mountinfo(5)): the mounts of the host, not
// those of a container that the exporter runs in.

// mountpoints and mountOptions are what is looked at: places where users and
// services may write, and what protects there.
var (
	mountpoints  = []string{"/boot", "/dev/shm", "/home", "/tmp", "/var", "/var/log", "/var/log/audit", "/var/tmp"}
	mountOptions = []string{"nodev", "nosuid", "noexec"}
)

func mountsCollector() Spec {
	option := metric.NewState("linux_security_mount_option_set",
		"Whether the file system is mounted with the option; absent if the directory has no file system of its own.",
		metric.Closed("mountpoint", mountpoints...), metric.Closed("option", mountOptions...))
	separate := metric.NewState("linux_security_mount_separate",
		"Whether the directory has a file system of its own.",
		metric.Closed("mountpoint", mountpoints...))
	return Spec{
		Name:    "mounts",
		Help:    "Options of the file systems that users and services write to.",
		Metrics: []*metric.Metric{option, separate},
		Watch:   []string{"/etc/fstab"},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			b, err := in.Procfs.ReadFile(ctx, "/1/mountinfo")
			if err != nil {
				return err
			}
			table, err := parseMounts(bytes.NewReader(b))
			if err != nil {
				return err
			}
			for _, point := range mountpoints {
				m, ok := table.at(point)
				out.Bool(separate, ok, point)
				for _, o := range mountOptions {
					if ok {
						out.Bool(option, slices.Contains(m.options, o), point, o)
					}
				}
			}
			return nil
		},
	}
}

// mount is one line of mountinfo. Of two on one directory the later has the
// earlier as parent and hides it.
type mount struct {
	id, parent, point string
	options           []string
	fstype, source    string
}

type mountTable []mount

// at returns the file system mounted on a directory, found as the kernel
// finds it: from the root down, into each mount on the way. One that lies
// below a later mount of an upper directory is not seen.
func (t mountTable) at(point string) (mount, bool) {
	i := slices.IndexFunc(t, func(m mount) bool { return m.point == "/" })
	if i < 0 {
		return mount{}, false
	}
	now := t.top(t[i], "/")
	path := ""
	for name := range strings.SplitSeq(strings.Trim(point, "/"), "/") {
		path += "/" + name
		now = t.top(now, path)
	}
	return now, now.point == point
}

// top enters what is mounted on a directory of the mount, and on that.
func (t mountTable) top(now mount, point string) mount {
	for range t {
		i := slices.IndexFunc(t, func(m mount) bool { return m.parent == now.id && m.point == point && m.id != now.id })
		if i < 0 {
			break
		}
		now = t[i]
	}
	return now
}

// parseMounts reads mountinfo. Lines in another form are skipped.
func parseMounts(r io.Reader) (mountTable, error) {
	var table mountTable
	lines := configLines(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		end := slices.Index(f, "-")
		if end < 6 || len(f) < end+3 {
			continue
		}
		table = append(table, mount{
			id: f[0], parent: f[1], point: unescapeMount(f[4]), options: strings.Split(f[5], ","),
			fstype: f[end+1], source: unescapeMount(f[end+2]),
		})
	}
	return table, lines.Err()
}

// unescapeMount undoes the escapes of blanks, line ends, backslashes and
// hashes: a backslash and three octal digits.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3' && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }
