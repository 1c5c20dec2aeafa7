// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Stats the files below (inode(7)), links followed, and reads /etc/group for
// the ids of the groups that distributions give them to.

// fileRule is what is expected of a file, or of each file of a pattern.
type fileRule struct {
	path string
	// mode has every bit that may be set.
	mode uint32
	// groups may own the file besides root. Any other group must not have
	// more rights than everyone.
	groups []string
}

// fileRules let in what Debian, Red Hat, SUSE, Alpine and Arch ship. Files
// without secrets may be read by all.
var fileRules = []fileRule{
	{path: "/etc/passwd", mode: 0o644}, {path: "/etc/passwd-", mode: 0o644},
	{path: "/etc/group", mode: 0o644}, {path: "/etc/group-", mode: 0o644},
	{path: "/etc/shadow", mode: 0o640, groups: []string{"shadow"}},
	{path: "/etc/shadow-", mode: 0o640, groups: []string{"shadow"}},
	{path: "/etc/gshadow", mode: 0o640, groups: []string{"shadow"}},
	{path: "/etc/gshadow-", mode: 0o640, groups: []string{"shadow"}},
	{path: "/etc/security/opasswd", mode: 0o600},
	{path: "/etc/sudoers", mode: 0o640}, {path: "/etc/sudoers.d", mode: 0o755}, {path: "/etc/sudoers.d/*", mode: 0o640},
	{path: "/etc/pam.d", mode: 0o755}, {path: "/etc/pam.d/*", mode: 0o644},
	{path: "/etc/ld.so.preload", mode: 0o644},
	{path: "/etc/ssh/sshd_config", mode: 0o644}, {path: "/etc/ssh/sshd_config.d/*", mode: 0o644},
	{path: "/etc/ssh/ssh_host_*_key", mode: 0o640, groups: []string{"ssh_keys"}},
	{path: "/etc/ssh/ssh_host_*_key.pub", mode: 0o644},
	{path: "/etc/crontab", mode: 0o644}, {path: "/etc/cron.d", mode: 0o755}, {path: "/etc/cron.d/*", mode: 0o644},
	{path: "/etc/cron.hourly", mode: 0o755}, {path: "/etc/cron.daily", mode: 0o755},
	{path: "/etc/cron.weekly", mode: 0o755}, {path: "/etc/cron.monthly", mode: 0o755},
	{path: "/var/spool/cron/crontabs", mode: 0o1730, groups: []string{"crontab"}},
	{path: "/etc/audit/auditd.conf", mode: 0o640}, {path: "/etc/audit/audit.rules", mode: 0o640},
	{path: "/boot/grub/grub.cfg", mode: 0o644}, {path: "/boot/grub2/grub.cfg", mode: 0o644},
	{path: "/boot/grub/user.cfg", mode: 0o600}, {path: "/boot/grub2/user.cfg", mode: 0o600},
	{path: "/root", mode: 0o750},
	{path: "/run/docker.sock", mode: 0o660, groups: []string{"docker"}},
	{path: "/run/containerd/containerd.sock", mode: 0o660},
	{path: "/etc/kubernetes/admin.conf", mode: 0o600},
}

func fileModesCollector() Spec {
	paths := make([]string, len(fileRules))
	for i, r := range fileRules {
		paths[i] = r.path
	}
	compliant := metric.NewState("linux_security_file_mode_compliant",
		"Whether the file, or every file of the pattern, belongs to root and gives nobody more rights than expected.",
		metric.Closed("path", paths...))
	return Spec{
		Name:    "file_modes",
		Help:    "Owner and mode of files that decide about security.",
		Metrics: []*metric.Metric{compliant},
		Watch:   []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/sshd_config", "/etc/crontab"},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			groups, err := fileGroups(ctx, in.Rootfs)
			problems := []error{err}
			for _, r := range fileRules {
				good, found, err := r.check(ctx, in.Rootfs, groups)
				problems = append(problems, err)
				if found {
					out.Bool(compliant, good, r.path)
				}
			}
			return Partial(errors.Join(problems...))
		},
	}
}

// check looks at the file or files. found is false if there are none, and if
// one could not be looked at: then nothing is certain.
func (r fileRule) check(ctx context.Context, root *hostfs.Tree, groups map[string]uint32) (compliant, found bool, err error) {
	files := []string{r.path}
	if strings.Contains(r.path, "*") {
		if files, err = root.Glob(ctx, r.path); err != nil {
			return false, false, err
		}
	}
	compliant = true
	for _, file := range files {
		info, err := root.Stat(ctx, file)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, false, err
		}
		found = true
		compliant = compliant && r.allows(info, groups)
	}
	return compliant, found, nil
}

func (r fileRule) allows(info hostfs.Info, groups map[string]uint32) bool {
	allowed := r.mode
	known := info.GID == 0 || slices.ContainsFunc(r.groups, func(name string) bool {
		gid, ok := groups[name]
		return ok && gid == info.GID
	})
	if !known {
		allowed = allowed&^0o070 | allowed&0o007<<3
	}
	return info.UID == 0 && info.Perm&^allowed == 0
}

// fileGroups returns the ids of groups by name.
func fileGroups(ctx context.Context, root *hostfs.Tree) (map[string]uint32, error) {
	b, err := root.ReadFile(ctx, "/etc/group")
	if errors.Is(err, hostfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	groups, err := parseGroupIDs(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("/etc/group: %w", err)
	}
	return groups, nil
}

// parseGroupIDs reads the ids in group(5); of two lines with one name the
// first counts.
func parseGroupIDs(r io.Reader) (map[string]uint32, error) {
	ids := make(map[string]uint32)
	lines := configLines(r)
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 4)
		if len(f) < 3 {
			continue
		}
		id, err := strconv.ParseUint(f[2], 10, 32)
		if _, known := ids[f[0]]; err == nil && !known && f[0] != "" {
			ids[f[0]] = uint32(id)
		}
	}
	return ids, lines.Err()
}
