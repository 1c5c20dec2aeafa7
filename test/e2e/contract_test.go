// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writeHost writes files below a new directory.
func writeHost(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		f := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fixedSeries is one series of every fixed name as a host has it that has them
// all: the labels, in the order of the page, are those of the earlier exporter.
// A value that begins with ~ is a regular expression.
var fixedSeries = []struct{ name, labels, value string }{
	{"os_version_info", `{bug_report_url="",build_id="",cpe_name="",home_url="",id="debian",id_like="",image_id="",image_version="",os_name="Debian",pretty_name="Debian 12",redhat_release="",support_url="",variant="",variant_id="",version="12",version_id="12"}`, "1"},
	{"account_info", `{has_sudo="true",home_dir="/home/eve",other_groups="adm,sudo",primary_group="eve",shell="/bin/bash",username="eve"}`, "1"},
	{"account_info", `{has_sudo="false",home_dir="/",other_groups="",primary_group="eve",shell="/bin/false",username="bob"}`, "1"},
	{"last_password_change", `{username="eve"}`, "20000"},
	{"account_expire", `{username="eve"}`, "25000"},
	{"password_max_days", `{username="eve"}`, "99999"},
	{"password_min_days", `{username="eve"}`, "0"},
	{"password_warn_days", `{username="eve"}`, "7"},
	{"password_inactive", `{username="eve"}`, "30"},
	{"sshd_config_info", `{info_key="PermitRootLogin",info_value="no"}`, "1"},
	{"login_defs_info", `{info_key="UMASK",info_value="num"}`, "18"},
	{"login_defs_info", `{info_key="ENCRYPT_METHOD",info_value="YESCRYPT"}`, "1"},
	{"selinux_config", `{info_key="SELINUX",info_value="permissive"}`, "1"},
	{"selinux_mode", `~\{mode="(enforcing|permissive|disabled)"\}`, "1"},
	{"apparmor_enabled", "", "~[01]"},
	{"apparmor_profiles", "", "~[0-9]+"},
	{"firewall_enabled", `~\{firewall_type="none",is_running="false"\}`, "~[01]"},
	{"firewall_enabled", `~\{firewall_type="ufw",is_running="(true|false)"\}`, "~[01]"},
	{"ports_use_info", `~\{app_name="[^"]*",exe_path="[^"]*",local_ip="127.0.0.1",local_port="[0-9]+",process="[^"]*",protocol="tcp",state="LISTEN",version="[^"]*"\}`, "1"},
	{"services_info", `~\{is_enabled="true",is_running="(true|false)",service_name="a",service_type="systemd"\}`, "1"},
	{"last_patch_time", `{package_type="dpkg"}`, "1"},
	{"package_count", `{package_type="dpkg"}`, "1"},
	{"hosts_options_info", `{action="allow",file="hosts.allow",host="10.",service="sshd"}`, "1"},
	{"system_target_info", `~\{current_target="[a-z-]+.target",target_type="systemd"\}`, "1"},
	{"sysctl_param_secure", `{name="2",param="kernel.randomize_va_space"}`, "~[01]"},
	{"crontab_entry", `{command="/usr/bin/job",source="/etc/crontab",user="eve"}`, "1"},
	{"auditd_running", "", "~[01]"},
	{"auditd_rules_count", "", "~[0-9]+"},
}

// Every fixed name is there with its labels and its values.
func TestPostureContract(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the firewall and audit are asked of the kernel")
	}
	root := writeHost(t, map[string]string{
		"etc/os-release":        "NAME=Debian\nID=debian\nPRETTY_NAME=\"Debian 12\"\nVERSION=12\nVERSION_ID='12'\n",
		"etc/passwd":            "root:x:0:0::/root:/bin/sh\neve:x:1000:1000::/home/eve:/bin/bash\nbob:x:1001:1000::/:/bin/false\n",
		"etc/group":             "root:x:0:\nadm:x:4:eve\nsudo:x:27:eve\neve:x:1000:\n",
		"etc/shadow":            "root:*:20000:0:99999:7:::\neve:$y$j9T$a$b:20000:0:99999:7:30:25000:\nbob:!:::::::\n",
		"etc/sudoers":           "%sudo ALL=(ALL:ALL) ALL\n",
		"etc/ssh/sshd_config":   "PermitRootLogin no\nPermitRootLogin yes\n",
		"etc/login.defs":        "UMASK 022\nENCRYPT_METHOD YESCRYPT\n",
		"etc/selinux/config":    "SELINUX=permissive\n",
		"etc/hosts.allow":       "sshd: 10.\n",
		"etc/crontab":           "1 2 * * * eve /usr/bin/job --secret=x\n",
		"etc/audit/audit.rules": "-w /etc/passwd -p wa\n",
		"etc/ufw/ufw.conf":      "ENABLED=no\n",
		"var/lib/dpkg/status":   "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n",

		"var/lib/dpkg/info/a.list":                              "/usr/bin/a\n",
		"usr/lib/systemd/system/a.service":                      "[Service]\nExecStart=/usr/bin/a\n[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system/default.target":                 "[Unit]\nDescription=x\n",
		"etc/systemd/system/multi-user.target.wants/README.txt": "",
	})
	if err := os.Symlink("/usr/lib/systemd/system/a.service", filepath.Join(root, "etc/systemd/system/multi-user.target.wants/a.service")); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--path.rootfs="+root)
	page := p.page(t)
	pattern := func(s string) string {
		if re, ok := strings.CutPrefix(s, "~"); ok {
			return re
		}
		return regexp.QuoteMeta(s)
	}
	for _, s := range fixedSeries {
		re := regexp.MustCompile("(?m)^linux_security_" + s.name + pattern(s.labels) + " " + pattern(s.value) + "$")
		if !re.MatchString(page) {
			t.Errorf("no %s\n%s", re, strings.Join(regexp.MustCompile("(?m)^linux_security_"+s.name+"[{ ].*$").FindAllString(page, 5), "\n"))
		}
	}
	names := slices.Clone(fixedNames)
	for _, s := range fixedSeries {
		names = slices.DeleteFunc(names, func(n string) bool { return n == s.name })
	}
	if len(names) > 0 {
		t.Errorf("no series of %v is looked at", names)
	}
	p.stop(t)
}

// A host with 100,000 accounts is within the deadlines and within the memory
// that the packages allow.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	const n = 100_000
	var passwd, group, shadow, members strings.Builder
	passwd.WriteString("root:x:0:0::/root:/bin/sh\n")
	for i := range n {
		fmt.Fprintf(&passwd, "u%d:x:%d:%d::/home/u%d:/bin/bash\n", i, 1000+i, 1000+i, i)
		fmt.Fprintf(&group, "u%d:x:%d:u%d\n", i, 1000+i, i)
		fmt.Fprintf(&shadow, "u%d:$y$j9T$abc$def:20000:0:99999:7:::\n", i)
		fmt.Fprintf(&members, "u%d,", i)
	}
	root := writeHost(t, map[string]string{
		"etc/passwd": passwd.String(), "etc/group": group.String() + "sudo:x:27:" + strings.TrimSuffix(members.String(), ",") + "\n",
		"etc/shadow": shadow.String(), "etc/shells": "/bin/bash\n/bin/sh\n", "etc/sudoers": "%sudo ALL=(ALL) NOPASSWD: ALL\n",
	})
	p := start(t, "--path.rootfs="+root)
	deadline := time.Now().Add(30 * time.Second)
	page := p.page(t)
	for !strings.Contains(page, `check_passed{check="sudo_nopasswd_all"`) {
		if time.Now().After(deadline) {
			t.Fatal("no check has a result")
		}
		time.Sleep(100 * time.Millisecond)
		page = p.page(t)
	}
	for series, want := range map[string]float64{
		`linux_security_accounts{state="login_shell"}`:                            n + 1,
		`linux_security_password_hash_accounts{scheme="yescrypt"}`:                n,
		`linux_security_check_passed{check="sudo_nopasswd_all",section="sudo"}`:   0,
		`linux_security_check_passed{check="accounts_unique",section="accounts"}`: 1,
		`linux_security_scrape_collector_success{collector="accounts"}`:           1,
		`linux_security_scrape_collector_success{collector="password"}`:           1,
	} {
		if got := value(t, page, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	if kib, _ := strconv.Atoi(string(m[1])); kib > 400<<10 {
		t.Errorf("it took %d MiB, and 512 are allowed", kib>>10)
	}
	p.stop(t)
}
