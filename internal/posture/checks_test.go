// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
)

func noAudit(context.Context) (*auditState, error) { return nil, unix.EPROTONOSUPPORT }

func TestChecks(t *testing.T) {
	t.Parallel()
	// Owners and modes are not part of a checkout.
	waived := make(map[string]string)
	for _, c := range checkTable() {
		if c.section == sectionFiles || c.id == "accounts_home" {
			waived[c.id] = "owner and mode are not part of a fixture"
		}
	}
	golden(t, func() Spec { return checksWith(noAudit) }, withSettings(Settings{Waivers: waived}))
}

// files is a host by path; a mode other than 644 stands before the content,
// as "600|", and a folder has the content "dir".
type files map[string]string

// with returns the files of both, the later ones first.
func (f files) with(more files) files {
	out := maps.Clone(f)
	maps.Copy(out, more)
	return out
}

func (f files) write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range f {
		file := filepath.Join(root, name)
		if content == "dir" {
			if err := os.MkdirAll(file, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		mode := uint32(0o644)
		if before, after, ok := strings.Cut(content, "|"); ok && len(before) == 3 {
			if _, err := fmt.Sscanf(before, "%o", &mode); err == nil {
				content = after
			}
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// checkSeries runs the catalogue and returns passed and error by check.
func checkSeries(t *testing.T, root string, s Settings, audit func(context.Context) (*auditState, error)) (passed, failed map[string]float64) {
	t.Helper()
	spec := checksWith(audit)
	batch := metric.NewBatch(500)
	err := spec.Collect(t.Context(), fixtureInput(root, s), batch)
	passed, failed = make(map[string]float64), make(map[string]float64)
	for _, f := range gather(t, batchCollector{spec.Metrics, batch}) {
		for _, m := range f.Metric {
			into := passed
			switch f.GetName() {
			case "linux_security_check_error":
				into = failed
			case "linux_security_check_waived":
				continue
			}
			into[m.Label[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	for id, v := range failed {
		if (v == 1) != strings.Contains(fmt.Sprint(err), "check "+id+": ") {
			t.Errorf("check_error of %s is %v, but the error is %v", id, v, err)
		}
	}
	return passed, failed
}

const goodHash = "$y$j9T$abc$def"

var (
	passwdGood = files{"etc/passwd": "root:x:0:0::/root:/bin/bash\nbin:x:2:2::/bin:/usr/sbin/nologin\neve:x:1000:1000::/home/eve:/bin/bash\n",
		"etc/group": "root:x:0:\nbin:x:2:\neve:x:1000:\n", "etc/shadow": "root:*:20000:0:99999:7:::\neve:" + goodHash + ":20000:1:90:7:30::\n"}
	loginDefsGood = files{"etc/login.defs": "PASS_MAX_DAYS 90\nPASS_MIN_DAYS 1\nPASS_WARN_AGE 7\n"}
	shadowOf      = func(fields string) files {
		return passwdGood.with(loginDefsGood).with(files{"etc/shadow": "eve:" + fields + "\n"})
	}
	sudoersOf = func(text string) files { return passwdGood.with(files{"etc/sudoers": text}) }
	sshdOf    = func(text string) files { return files{"etc/ssh/sshd_config": text} }
	pamOf     = func(service, text string) files { return files{"etc/pam.d/" + service: text} }
	mountsOf  = func(options string) files {
		info := "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
		for i, dir := range []string{"/tmp", "/dev/shm", "/var/tmp"} {
			info += fmt.Sprintf("%d 20 0:%d / %s %s - tmpfs tmpfs rw\n", 30+i, 30+i, dir, options)
		}
		return files{"proc/1/mountinfo": info, "tmp": "dir", "dev/shm": "dir", "var/tmp": "dir"}
	}
	sysctlOf = func(values ...string) files {
		out := files{}
		for i := 0; i < len(values); i += 2 {
			out["proc/sys/"+values[i]] = values[i+1] + "\n"
		}
		return out
	}
	interfaces = func(values ...string) files {
		out := files{"proc/sys/net/ipv4/conf/eth0/forwarding": "0\n", "proc/sys/net/ipv6/conf/eth0/forwarding": "0\n"}
		for i := 0; i < len(values); i += 3 {
			for _, name := range []string{"all", "default"} {
				out["proc/sys/net/"+values[i]+"/conf/"+name+"/"+values[i+1]] = values[i+2] + "\n"
			}
			out["proc/sys/net/"+values[i]+"/conf/eth0/"+values[i+1]] = values[i+2] + "\n"
		}
		return out
	}
)

// checkCases has hosts that pass and hosts that fail each check.
var checkCases = map[string]struct{ good, bad []files }{
	"accounts_root_only":      {[]files{passwdGood}, []files{passwdGood.with(files{"etc/passwd": "root:x:0:0::/:/bin/sh\ntoor:x:+0:0::/:/bin/sh\n"})}},
	"accounts_empty_password": {[]files{passwdGood}, []files{shadowOf("::0::::"), passwdGood.with(files{"etc/passwd": "eve::1000:1000::/:/bin/sh\n"})}},
	"accounts_compat_entries": {[]files{passwdGood}, []files{passwdGood.with(files{"etc/group": "root:x:0:\n+:::\n"}), passwdGood.with(files{"etc/shadow": "+::::::::\n"})}},
	"accounts_primary_group":  {[]files{passwdGood}, []files{passwdGood.with(files{"etc/group": "root:x:0:\n"})}},
	"accounts_unique": {[]files{passwdGood}, []files{
		passwdGood.with(files{"etc/passwd": "a:x:1:1::/:\nb:x:1:1::/:\n"}), passwdGood.with(files{"etc/passwd": "a:x:1:1::/:\na:x:2:1::/:\n"}),
		passwdGood.with(files{"etc/group": "a:x:1:\nb:x:1:\n"}), passwdGood.with(files{"etc/group": "a:x:1:\na:x:2:\n"}),
	}},
	"accounts_root_group": {[]files{passwdGood}, []files{passwdGood.with(files{"etc/passwd": "root:x:0:1::/:/bin/sh\n"})}},
	"accounts_system_login": {[]files{passwdGood, passwdGood.with(files{"etc/passwd": "sync:x:4:1::/:/bin/sync\n"})},
		[]files{passwdGood.with(files{"etc/passwd": "bin:x:2:2::/bin:/bin/sh\n"}), passwdGood.with(files{"etc/passwd": "a:x:1500:2::/bin:/bin/sh\n", "etc/login.defs": "UID_MIN 2000\n"})}},
	"accounts_home": {[]files{passwdGood.with(files{"etc/passwd": "bin:x:2:2::/nope:/bin/sh\nnobody:x:65534:2::/nope:/bin/sh\na:x:1000:1::/nope:/usr/sbin/nologin\n"})},
		[]files{passwdGood, passwdGood.with(files{"home/eve": "a file"})}},
	"password_max_age":     {[]files{shadowOf(goodHash + ":20000:1:365:7:::"), shadowOf("!" + goodHash + ":20000::99999:7:::")}, []files{shadowOf(goodHash + ":20000:1:99999:7:::"), shadowOf(goodHash + ":20000:1::7:::"), shadowOf(goodHash + ":20000:1:0:7:::"), passwdGood.with(files{"etc/login.defs": "PASS_MAX_DAYS 99999\n"})}},
	"password_min_age":     {[]files{shadowOf(goodHash + ":20000:1:365:7:::")}, []files{shadowOf(goodHash + ":20000:0:365:7:::"), shadowOf(goodHash + ":20000::365:7:::")}},
	"password_warning":     {[]files{shadowOf(goodHash + ":20000:1:365:7:::")}, []files{shadowOf(goodHash + ":20000:1:365:6:::"), passwdGood.with(files{"etc/login.defs": "PASS_MAX_DAYS 9\n"})}},
	"password_inactive":    {[]files{shadowOf(goodHash + ":20000:1:365:7:45::"), shadowOf("*:20000:1:365:7:::")}, []files{shadowOf(goodHash + ":20000:1:365:7:46::"), shadowOf(goodHash + ":20000:1:365:7:::")}},
	"password_change_past": {[]files{shadowOf(goodHash + ":20455:1:365:7:::")}, []files{shadowOf(goodHash + ":20456:1:365:7:::")}},
	"password_hash":        {[]files{shadowOf(goodHash + ":1:::::"), shadowOf("$6$a$b:1:::::"), shadowOf("!$1$a$b:1:::::")}, []files{shadowOf("$1$a$b:1:::::"), shadowOf("$5$a$b:1:::::"), shadowOf("abcdefghijklm:1:::::")}},

	"pam_faillock": {[]files{
		pamOf("login", "@include common-auth\n").with(pamOf("common-auth", "auth required pam_faillock.so preauth\n")),
		pamOf("sshd", "auth substack password-auth\n").with(pamOf("password-auth", "auth [default=die] \\\n /lib/security/pam_faillock.so authfail\n")),
	}, []files{pamOf("login", "auth required pam_unix.so\n"), pamOf("sshd", "account required pam_faillock.so\n"), pamOf("sshd", "#auth required pam_faillock.so\n"), pamOf("login", "@include login\n").with(pamOf("sshd", "auth required pam_unix.so\n"))}},
	"pam_pwquality": {[]files{
		pamOf("passwd", "password requisite pam_pwquality.so retry=3 minlen=12\n"),
		pamOf("passwd", "password requisite pam_pwquality.so\n").with(files{"etc/security/pwquality.conf": "minlen = 14 # long\n", "etc/security/pwquality.conf.d/a.conf": "minlen = 4\n"}),
	}, []files{pamOf("passwd", "password requisite pam_pwquality.so\n"), pamOf("passwd", "password optional pam_pwquality.so minlen=20\n"), pamOf("passwd", "password required pam_unix.so\n"), pamOf("passwd", "password required pam_pwquality.so minlen=x\n")}},
	"pam_pwhistory": {[]files{pamOf("passwd", "password required pam_pwhistory.so\n"), pamOf("passwd", "password [success=1 default=ignore] pam_unix.so remember=5\n")},
		[]files{pamOf("passwd", "password required pam_pwhistory.so remember=4\n"), pamOf("passwd", "password required pam_unix.so\n"), pamOf("passwd", "password required pam_pwhistory.so\n").with(files{"etc/security/pwhistory.conf": "remember=2\n"})}},
	"sudo_use_pty":      {[]files{sudoersOf("Defaults use_pty\n")}, []files{sudoersOf("root ALL=(ALL) ALL\n"), sudoersOf("Defaults use_pty\nDefaults !use_pty\n"), sudoersOf("Defaults:eve use_pty\n")}},
	"sudo_logfile":      {[]files{sudoersOf("Defaults logfile=/var/log/sudo.log\n")}, []files{sudoersOf("Defaults !logfile\n"), sudoersOf("\n")}},
	"sudo_nopasswd_all": {[]files{sudoersOf("root ALL=(ALL) NOPASSWD: ALL\neve ALL=NOPASSWD: /bin/ls, PASSWD: ALL\n")}, []files{sudoersOf("%eve ALL=(ALL) NOPASSWD: ALL\n"), sudoersOf("eve ALL=ALL\nDefaults !authenticate\n")}},
	"su_restricted": {[]files{pamOf("su", "auth sufficient pam_rootok.so\nauth required pam_wheel.so use_uid\n")},
		[]files{pamOf("su", "auth sufficient pam_rootok.so\n"), pamOf("su", "auth sufficient pam_wheel.so trust\n"), pamOf("su", "auth required pam_wheel.so deny group=x\n")}},

	"sshd_root_login":       {[]files{sshdOf("\n"), sshdOf("PermitRootLogin no\n"), sshdOf("permitrootlogin=without-password\n")}, []files{sshdOf("PermitRootLogin yes\nPermitRootLogin no\n"), sshdOf("PermitRootLogin no\nMatch Address 10.0.0.0/8\nPermitRootLogin yes\n")}},
	"sshd_empty_password":   {[]files{sshdOf("\n")}, []files{sshdOf("PermitEmptyPasswords yes\n")}},
	"sshd_password_auth":    {[]files{sshdOf("PasswordAuthentication no\n")}, []files{sshdOf("\n"), sshdOf("Match all\nPasswordAuthentication yes\n")}},
	"sshd_max_auth_tries":   {[]files{sshdOf("MaxAuthTries 4\n")}, []files{sshdOf("\n"), sshdOf("MaxAuthTries 5\n")}},
	"sshd_login_grace":      {[]files{sshdOf("LoginGraceTime 1m\n")}, []files{sshdOf("\n"), sshdOf("LoginGraceTime 0\n"), sshdOf("LoginGraceTime 61\n")}},
	"sshd_x11":              {[]files{sshdOf("\n")}, []files{sshdOf("X11Forwarding yes\n")}},
	"sshd_tcp_forwarding":   {[]files{sshdOf("AllowTcpForwarding no\n"), sshdOf("DisableForwarding yes\n")}, []files{sshdOf("\n"), sshdOf("AllowTcpForwarding local\n"), sshdOf("AllowTcpForwarding no\nMatch User a\nAllowTcpForwarding yes\n")}},
	"sshd_user_environment": {[]files{sshdOf("\n")}, []files{sshdOf("PermitUserEnvironment yes\n"), sshdOf("PermitUserEnvironment LANG,LC_*\n")}},
	"sshd_client_alive":     {[]files{sshdOf("ClientAliveInterval 5m\n")}, []files{sshdOf("\n"), sshdOf("ClientAliveInterval 901\n"), sshdOf("ClientAliveInterval 60\nClientAliveCountMax 0\n")}},
	"sshd_algorithms":       {[]files{sshdOf("\n"), sshdOf("Ciphers -3des-cbc\nMACs hmac-sha2-256\n")}, []files{sshdOf("Ciphers +aes128-cbc\n"), sshdOf("MACs hmac-md5\n"), sshdOf("KexAlgorithms diffie-hellman-group14-sha1,curve25519-sha256\n")}},

	"net_forwarding": {[]files{sysctlOf("net/ipv4/ip_forward", "0"), sysctlOf("net/ipv4/ip_forward", "0", "net/ipv6/conf/all/forwarding", "0")},
		[]files{
			sysctlOf("net/ipv4/ip_forward", "1"), sysctlOf("net/ipv4/ip_forward", "0", "net/ipv6/conf/all/forwarding", "1"),
			interfaces("ipv4", "forwarding", "0").with(sysctlOf("net/ipv4/ip_forward", "0", "net/ipv4/conf/eth0/forwarding", "1")),
			interfaces("ipv6", "force_forwarding", "0").with(sysctlOf("net/ipv4/ip_forward", "0", "net/ipv6/conf/eth0/force_forwarding", "1")),
		}},
	"net_redirects": {[]files{interfaces("ipv4", "accept_redirects", "0", "ipv4", "send_redirects", "0", "ipv6", "accept_redirects", "0")},
		[]files{interfaces("ipv4", "accept_redirects", "0").with(files{"proc/sys/net/ipv4/conf/eth0/accept_redirects": "1\n"}), interfaces("ipv6", "accept_redirects", "1"), interfaces("ipv4", "send_redirects", "1")}},
	"net_source_route": {[]files{interfaces("ipv4", "accept_source_route", "0")}, []files{interfaces("ipv4", "accept_source_route", "1")}},
	"net_rp_filter":    {[]files{interfaces("ipv4", "rp_filter", "2")}, []files{interfaces("ipv4", "rp_filter", "1").with(files{"proc/sys/net/ipv4/conf/eth0/rp_filter": "0\n", "proc/sys/net/ipv4/conf/all/rp_filter": "0\n"})}},
	"net_log_martians": {[]files{sysctlOf("net/ipv4/conf/all/log_martians", "1")}, []files{sysctlOf("net/ipv4/conf/all/log_martians", "0")}},
	"net_syncookies":   {[]files{sysctlOf("net/ipv4/tcp_syncookies", "1")}, []files{sysctlOf("net/ipv4/tcp_syncookies", "0")}},
	"kernel_aslr":      {[]files{sysctlOf("kernel/randomize_va_space", "2")}, []files{sysctlOf("kernel/randomize_va_space", "1")}},

	"files_shadow":  {[]files{{"etc/shadow": "640|", "etc/passwd": ""}}, []files{{"etc/shadow": ""}, {"etc/passwd": "666|"}}},
	"files_sudoers": {[]files{{"etc/sudoers": "440|", "etc/sudoers.d/a": "440|"}}, []files{{"etc/sudoers": "440|", "etc/sudoers.d/a": "666|"}}},
	"files_sshd":    {[]files{{"etc/ssh/sshd_config": "", "etc/ssh/ssh_host_rsa_key": "600|", "etc/ssh/ssh_host_rsa_key.pub": ""}}, []files{{"etc/ssh/ssh_host_rsa_key": ""}}},
	"files_cron":    {[]files{{"etc/crontab": "", "etc/cron.d": "dir"}}, []files{{"etc/crontab": "664|"}}},
	"files_grub":    {[]files{{"boot/grub/grub.cfg": "444|"}}, []files{{"boot/grub2/grub.cfg": "646|"}}},

	"mount_tmp":     {[]files{mountsOf("rw,nosuid,nodev,noexec")}, []files{mountsOf("rw,nosuid,nodev"), {"tmp": "dir", "proc/1/mountinfo": "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}}},
	"mount_dev_shm": {[]files{mountsOf("rw,nosuid,nodev,noexec")}, []files{mountsOf("rw,nodev,noexec")}},
	"mount_var_tmp": {[]files{mountsOf("rw,nosuid,nodev,noexec")}, []files{mountsOf("rw,nosuid,noexec")}},

	"log_persistent": {[]files{
		{"run/systemd/journal": "dir", "var/log/journal": "dir", "proc/1/comm": "systemd\n"},
		{"run/systemd/journal": "dir", "etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n", "proc/1/comm": "systemd\n"},
		{"proc/1/comm": "init\n", "proc/77/comm": "rsyslogd\n", "dev/log": "a socket"},
	}, []files{
		{"run/systemd/journal": "dir", "proc/1/comm": "systemd\n", "dev/log": "a socket"}, {"proc/1/comm": "init\n", "proc/77/comm": "rsyslogd\n"}, {"var/log/journal": "dir", "proc/1/comm": "init\n"},
		{"run/systemd/journal": "dir", "var/log/journal": "dir", "etc/systemd/journald.conf.d/a.conf": "[Journal]\nStorage=volatile\n", "proc/1/comm": "systemd\n"},
	}},
}

// Every check passes on its good hosts, fails on its bad ones, and has no
// series on an empty one.
func TestCheckCases(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of the fixtures belong to it")
	}
	empty, emptyErrors := checkSeries(t, files{"proc": "dir"}.write(t), Settings{}, noAudit)
	if len(empty)+len(emptyErrors) > 0 {
		t.Errorf("an empty host has %v %v", empty, emptyErrors)
	}
	for _, c := range checkTable() {
		if c.id == "audit_enabled" {
			continue // TestCheckAudit
		}
		cases, ok := checkCases[c.id]
		if !ok || len(cases.good) == 0 || len(cases.bad) == 0 {
			t.Errorf("%s has no host that passes or none that fails", c.id)
		}
		for want, hosts := range map[float64][]files{1: cases.good, 0: cases.bad} {
			for i, host := range hosts {
				passed, _ := checkSeries(t, host.write(t), Settings{}, noAudit)
				if got, ok := passed[c.id]; !ok || got != want {
					t.Errorf("%s on host %d: %v (present %v), want %v\n%q", c.id, i, got, ok, want, host)
				}
			}
		}
	}
}

func TestCheckHomeOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a home to an account")
	}
	root := passwdGood.with(files{"home/eve": "dir"}).write(t)
	for _, c := range []struct {
		uid  int
		mode os.FileMode
		want float64
	}{{1000, 0o755, 1}, {0, 0o755, 0}, {1000, 0o775, 0}, {1000, 0o702, 0}} {
		home := filepath.Join(root, "home/eve")
		if err := os.Chown(home, c.uid, 1000); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(home, c.mode); err != nil {
			t.Fatal(err)
		}
		if passed, _ := checkSeries(t, root, Settings{}, noAudit); passed["accounts_home"] != c.want {
			t.Errorf("uid %d, mode %o: %v", c.uid, c.mode, passed["accounts_home"])
		}
	}
}

func TestCheckAudit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		enabled, pid uint32
		cmdline      string
		want         float64
	}{{1, 7, "quiet audit=1\n", 1}, {2, 7, "audit=1\n", 1}, {0, 7, "audit=1\n", 0}, {1, 0, "audit=1\n", 0}, {1, 8, "audit=1\n", 0}, {1, 7, "quiet\n", 0}} {
		state := &auditState{}
		state.Enabled, state.Pid = c.enabled, c.pid
		root := files{"proc/cmdline": c.cmdline, "proc/7/comm": "auditd\n"}.write(t)
		passed, _ := checkSeries(t, root, Settings{}, func(context.Context) (*auditState, error) { return state, nil })
		if got, ok := passed["audit_enabled"]; !ok || got != c.want {
			t.Errorf("%+v: %v (present %v)", c, got, ok)
		}
	}
	passed, failed := checkSeries(t, t.TempDir(), Settings{}, func(context.Context) (*auditState, error) { return nil, unix.EPERM })
	if _, ok := passed["audit_enabled"]; ok || failed["audit_enabled"] != 1 {
		t.Errorf("without permission: passed %v, error %v", passed, failed)
	}
}

// What the configuration file expects of a parameter counts in the checks too,
// and a waived check has neither result nor error.
func TestCheckSettings(t *testing.T) {
	t.Parallel()
	root := interfaces("ipv4", "forwarding", "1").with(sysctlOf("net/ipv4/ip_forward", "1", "net/ipv4/tcp_syncookies", "0")).write(t)
	passed, failed := checkSeries(t, root, Settings{
		Sysctl: map[string]string{"net.ipv4.ip_forward": "1"}, Waivers: map[string]string{"net_syncookies": "reason"},
	}, noAudit)
	if len(passed) != 1 || passed["net_forwarding"] != 1 || len(failed) != 1 || failed["net_forwarding"] != 0 {
		t.Errorf("passed %v, error %v", passed, failed)
	}
}

// A finding counts although something else could not be read; no finding does
// not.
func TestCheckErrors(t *testing.T) {
	t.Parallel()
	root := passwdGood.with(files{"etc/shadow": "dir", "etc/passwd": "root:x:0:0::/:/bin/sh\neve::1:0::/:\nbad\n"}).write(t)
	passed, failed := checkSeries(t, root, Settings{}, noAudit)
	if v, ok := passed["accounts_empty_password"]; !ok || v != 0 || failed["accounts_empty_password"] != 1 {
		t.Errorf("empty password: %v %v, error %v", v, ok, failed["accounts_empty_password"])
	}
	if _, ok := passed["accounts_root_group"]; ok || failed["accounts_root_group"] != 1 {
		t.Errorf("root's group: %v, error %v", ok, failed["accounts_root_group"])
	}
}

func TestCheckTable(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range Checks() {
		if seen[c.ID] || !isShellName(c.ID) || strings.ToLower(c.ID) != c.ID {
			t.Errorf("id %q", c.ID)
		}
		seen[c.ID] = true
		if !strings.HasSuffix(c.Help, ".") || strings.Count(c.Help, "\n") > 0 {
			t.Errorf("%s: help %q is not one sentence", c.ID, c.Help)
		}
	}
	var paths []string
	for _, r := range fileRules {
		paths = append(paths, r.path)
	}
	for id := range checkCases {
		if !seen[id] {
			t.Errorf("cases of %s, which is no check", id)
		}
	}
	for _, p := range []string{"/etc/gshadow-", "/etc/sudoers.d/*", "/etc/ssh/ssh_host_*_key", "/var/spool/cron/crontabs", "/boot/grub/user.cfg"} {
		if !slices.Contains(paths, p) {
			t.Errorf("%s is not in fileRules", p)
		}
	}
}

func FuzzParsePAM(f *testing.F) {
	f.Add("auth [success=1 default=ignore] pam_unix.so nullok\n@include common-auth\n-session optional \\\n pam_systemd.so\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, _ := parsePAM(strings.NewReader(s))
		for _, l := range lines {
			if l.module == "" || slices.Contains(l.args, "") {
				t.Errorf("%+v from %q", l, s)
			}
		}
	})
}

func FuzzParseSecurityConf(f *testing.F) {
	f.Add("minlen = 12\nenforce_for_root\n# dcredit = 1\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := make(map[string]string)
		if err := parseSecurityConf(strings.NewReader(s), got); err != nil {
			return
		}
		for k, v := range got {
			if k == "" || strings.TrimSpace(k) != k || strings.Contains(v, "#") {
				t.Errorf("%q=%q from %q", k, v, s)
			}
		}
	})
}
