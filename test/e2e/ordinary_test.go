// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// nobody is the user and group that own nothing.
const nobody = 65534

// privileged are the fixed names that an ordinary user does not get, by the
// collector that says why.
var privileged = map[string][]string{
	"password": {"last_password_change", "password_max_days", "password_min_days", "password_warn_days"},
	"firewall": {"firewall_enabled"},
	"audit":    {"auditd_rules_count"},
}

// unsure are those that depend on the kernel.
var unsure = []string{"apparmor_profiles", "auditd_running"}

// An ordinary user gets what everybody may read, and for the rest a collector
// without success and a line in the log.
func TestPostureOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := exec.Command(binary, "--web.listen-address=127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	p := launchCmd(t, cmd)
	p.waitListening(t)
	waitReady(t, p)
	page := p.page(t)

	var missing []string
	for collector, names := range privileged {
		missing = append(missing, names...)
		if v := value(t, page, `linux_security_scrape_collector_success{collector="`+collector+`"}`); v != 0 {
			t.Errorf("%s: success %v", collector, v)
		}
		reason := regexp.MustCompile(`msg="collector failed" collector=` + collector + ` error=.*(permission denied|not permitted)`)
		if !reason.MatchString(p.stderr()) {
			t.Errorf("the log does not say why %s fails\n%s", collector, p.stderr())
		}
	}
	for _, name := range fixedNames {
		if slices.Contains(unsure, name) {
			continue
		}
		if got, want := hasMetric(page, name), !slices.Contains(missing, name); got != want {
			t.Errorf("linux_security_%s: there %v, want %v", name, got, want)
		}
	}
	for _, want := range []string{
		`has_sudo="unknown",`, `linux_security_scrape_collector_success{collector="os"} 1`,
		`linux_security_scrape_collector_success{collector="packages"} 1`,
		`linux_security_scrape_collector_success{collector="services"} 1`,
		`linux_security_scrape_collector_success{collector="accounts"} 0`,
		`linux_security_scrape_collector_success{collector="ports"} 0`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	// Its own listener is the one whose process it may see.
	if !regexp.MustCompile(`ports_use_info\{.*exe_path="` + regexp.QuoteMeta(binary) + `"`).MatchString(page) {
		t.Error("its own socket has no process")
	}
	if strings.Contains(p.stderr(), "panic") {
		t.Errorf("panic\n%s", p.stderr())
	}
	p.stop(t)
}
