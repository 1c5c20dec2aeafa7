// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fixedNames are the metrics of the earlier exporter that a stock Debian host
// has as root; the others need what the host may lack (ageing fields, sshd,
// hosts.allow, cron, SELinux).
var fixedNames = []string{
	"os_version_info", "account_info", "last_password_change", "password_max_days", "password_min_days",
	"password_warn_days", "login_defs_info", "selinux_mode", "apparmor_enabled", "apparmor_profiles",
	"firewall_enabled", "services_info", "last_patch_time", "package_count",
	"system_target_info", "sysctl_param_secure", "auditd_running", "auditd_rules_count", "ports_use_info",
}

func hasMetric(page, name string) bool {
	return regexp.MustCompile(`(?m)^linux_security_` + name + `[{ ]`).MatchString(page)
}

// Posture is served without --ebpf.enabled, complete from the first scrape.
func TestPosture(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: some files are for root only")
	}
	p := start(t)
	page := p.page(t)
	for _, name := range fixedNames {
		if !hasMetric(page, name) {
			t.Errorf("the first scrape has no linux_security_%s", name)
		}
	}
	// What a stock host has only with a package that CI installs.
	for file, name := range map[string]string{"/etc/ssh/sshd_config": "sshd_config_info", "/etc/crontab": "crontab_entry"} {
		if _, err := os.Stat(file); err == nil && !hasMetric(page, name) {
			t.Errorf("the first scrape has no linux_security_%s", name)
		}
	}
	if !strings.Contains(page, `security_ebpf_up{status="disabled"} 0`) {
		t.Error("eBPF is not disabled")
	}
	if v := value(t, page, `linux_security_scrape_collector_success{collector="accounts"}`); v != 1 {
		t.Errorf("accounts: success %v", v)
	}
	p.stop(t)
}

// The settings reach the collectors.
func TestPostureSettings(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/crontab", "* * * * * root /bin/true --secret\n")
	write("etc/passwd", "root:x:0:0::/root:/bin/sh\neve::0:0::/:/bin/sh\n")
	write("proc/sys/kernel/sysrq", "176\n")
	write("config.yml", "sysctl:\n  expect:\n    kernel.sysrq: 176\nchecks:\n  waive:\n    accounts_root_only: a test\n")
	p := start(t, "--path.rootfs="+root, "--path.procfs="+filepath.Join(root, "proc"), "--config.file="+filepath.Join(root, "config.yml"),
		"--collector.cron.full-command", "--no-collector.ports", "--collector.legacy-names=true")
	page := p.page(t)
	for _, want := range []string{
		`linux_security_crontab_entry{command="/bin/true --secret",source="/etc/crontab",user="root"} 1`,
		`linux_security_sysctl_param_secure{name="176",param="kernel.sysrq"} 1`,
		`linux_security_accounts{state="uid0"} 2`,
		`linux_security_check_passed{check="accounts_empty_password",section="accounts"} 0`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, `collector="ports"`) || strings.Contains(page, `check_passed{check="accounts_root_only"`) {
		t.Error("a collector that is off, or a waived check, has series")
	}
	p.stop(t)

	p = start(t, "--collector.legacy-names=false", "--path.rootfs="+root, "--path.procfs="+filepath.Join(root, "proc"))
	page = p.page(t)
	if hasMetric(page, "crontab_entry") || !hasMetric(page, "accounts") {
		t.Error("legacy names are not left out")
	}
	p.stop(t)
}

// A change of a watched file is seen within two seconds.
func TestPostureChange(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	passwd := filepath.Join(root, "etc/passwd")
	if err := os.Mkdir(filepath.Dir(passwd), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--path.rootfs="+root)
	const series = "linux_security_accounts{state=\"uid0\"} "
	if page := p.page(t); !strings.Contains(page, series+"1\n") {
		t.Fatalf("%s1 is not there", series)
	}
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\neve:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed := time.Now()
	for {
		page := p.page(t)
		if strings.Contains(page, series+"2\n") && strings.Contains(page, `config_changes_total{file="/etc/passwd"} 1`) {
			break
		}
		if time.Since(changed) > 2*time.Second {
			t.Fatal("the change is not seen after 2 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code, _ := p.get(t, "/readyz", nil); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
	p.stop(t)
}
