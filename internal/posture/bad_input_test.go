// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
)

// badFiles are what may lie where a collector expects a file. An error has to
// name the file, but for content that only makes no sense.
var badFiles = []struct {
	name  string
	named bool
	put   func(file string) error
}{
	{"empty", false, func(f string) error { return os.WriteFile(f, nil, 0o644) }},
	{"binary", false, func(f string) error {
		return os.WriteFile(f, []byte("\x00\xff\xfe\x1b[31m\n:\x00::\n=\n\\\n[\xff]\n"), 0o644)
	}},
	{"one long line", false, func(f string) error { return os.WriteFile(f, []byte(strings.Repeat("a:", 1<<20)), 0o644) }},
	{"sparse", true, func(f string) error {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(f, 1<<30)
	}},
	{"fifo", true, func(f string) error { return unix.Mkfifo(f, 0o644) }},
	{"endless", true, func(f string) error { return unix.Mknod(f, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }},
	{"loop", true, func(f string) error { return os.Symlink(filepath.Base(f), f) }},
	{"directory", true, func(f string) error { return os.Mkdir(f, 0o755) }},
}

// badInputHost is what a collector needs to come to the file at all.
var badInputHost = map[string]string{
	"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:!:20000:0:99999:7:::\n",
	"etc/shells": "/bin/sh\n", "etc/nsswitch.conf": "passwd: files\n", "etc/login.defs": "PASS_MAX_DAYS 9\n",
	"etc/sudoers": "root ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n", "usr/etc/login.defs": "PASS_MAX_DAYS 9\n",
	"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n", "proc/sys/kernel/core_pattern": "|/usr/lib/systemd/systemd-coredump\n",
	"proc/sys/kernel/sysrq": "0\n", "etc/pam.d/common-auth": "auth required pam_unix.so\n",
}

// vendorOf is the file that comes first, so the other is read without it only.
var vendorOf = map[string]string{
	"/usr/etc/sudoers": "etc/sudoers", "/usr/etc/sudoers.d/zz": "etc/sudoers", "/usr/etc/ssh/sshd_config": "etc/ssh/sshd_config",
	"/usr/etc/ssh/sshd_config.d/zz.conf": "etc/ssh/sshd_config", "/usr/etc/login.defs": "etc/login.defs",
}

// notRead are files that are listed, looked at or passed over by rule, or not
// read on a host like this one: nothing in them can be wrong.
var notRead = []string{
	"file_modes ", " /etc/cron.hourly/", " /etc/cron.daily/", " /etc/cron.weekly/", " /etc/cron.monthly/", " /var/spool/cron/",
	" /etc/apparmor.d/", ".wants/", " /etc/runlevels/", "/systemd/system/zz", " /etc/pam.d/zz", " /etc/security/zz.conf",
	"/sudoers.d/zz", "/sshd_config.d/zz", "/opensshserver.config", " /etc/fstab", " /run/reboot-required", " /var/lib/pacman/local",
	" /etc/redhat-release", " /etc/hostname",
}

// Whatever lies in the place of a file that a collector reads, its run ends
// soon, without a panic, and says which file it is.
func TestBadInput(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a device")
	}
	for _, spec := range collectors() {
		spec.defaults()
		for _, watched := range spec.Watch {
			for _, bad := range badFiles {
				file := strings.ReplaceAll(watched, "*", "zz")
				dir := t.TempDir()
				for _, d := range []string{"proc/1", "sys", "etc", filepath.Dir(file)} {
					must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
				}
				for name, content := range badInputHost {
					if "/"+name != file && vendorOf[file] != name {
						must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
						put(t, filepath.Join(dir, name), content)
					}
				}
				must(t, bad.put(filepath.Join(dir, file)))
				var err error
				took := threadTime(t, func() {
					err = spec.Collect(t.Context(), fixtureInput(dir, Settings{}), metric.NewBatch(spec.MaxSeries))
				})
				if took > 2*time.Second {
					t.Errorf("%s, %s is %s: %s", spec.Name, file, bad.name, took)
				}
				if bad.named && !slices.ContainsFunc(notRead, func(p string) bool { return strings.Contains(spec.Name+" "+file, p) }) && (err == nil || !strings.Contains(err.Error(), filepath.Base(file))) {
					t.Errorf("%s, %s is %s: %v", spec.Name, file, bad.name, err)
				}
			}
		}
	}
}
