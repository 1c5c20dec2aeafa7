// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"security-exporter/internal/testkit"
)

func TestHostsAccess(t *testing.T) {
	t.Parallel()
	golden(t, hostsAccessCollector, prepared(func(t *testing.T, name, rootfs string) {
		install := func(file, library string) {
			f := filepath.Join(rootfs, file)
			must(t, os.MkdirAll(filepath.Dir(f), 0o755))
			must(t, os.WriteFile(f, elfNeeding(library), 0o755))
		}
		switch name {
		case "debian12":
			install("usr/sbin/sshd", "libwrap.so.0")
			install("usr/sbin/tcpd", "libwrap.so.0")
			install("usr/sbin/rpcbind", "libc.so.6")
		case "rhel9", "arch":
			install("usr/sbin/sshd", "libcrypto.so.3")
		}
	}))
}

func TestParseHosts(t *testing.T) {
	t.Parallel()
	rules, ignored := parseHosts([]byte("# c\nsshd, ftpd x : 10.0.0.0/8 [::1] EXCEPT [2001:db8::]/32 a\nno colon\n"+
		"ALL EXCEPT in.ftpd: LOCAL: spawn (echo a\\: b) & : SEVERITY=mail.info: allow\n\\\nx:\\\ny : twist = z\n"+
		strings.Repeat("l", 3000)+"\nsshd: ::1\nsshd: ALL: allow: spawn x\ny: z: aclexec q\nlast: x"), true)
	want := []hostsRule{
		{2, []string{"sshd", "ftpd", "x"}, []string{"10.0.0.0/8 EXCEPT [2001:db8::]/32 a", "[::1] EXCEPT [2001:db8::]/32 a"}, nil, "allow"},
		{4, []string{"ALL EXCEPT in.ftpd"}, []string{"LOCAL"}, []hostsOption{{"spawn", "(echo a: b) &"}, {"severity", "mail.info"}, {"allow", ""}}, "allow"},
		{7, []string{"x"}, []string{"y"}, []hostsOption{{"twist", "z"}}, "twist"},
		{9, []string{"sshd"}, nil, []hostsOption{{"", ""}, {"1", ""}}, "deny"},
		{10, []string{"sshd"}, []string{"ALL"}, []hostsOption{{"allow", ""}, {"spawn", "x"}}, "deny"},
		{11, []string{"y"}, []string{"z"}, []hostsOption{{"aclexec", "q"}}, "aclexec"},
	}
	for i := range rules {
		if len(rules[i].hosts) == 0 {
			rules[i].hosts = nil
		}
	}
	if !reflect.DeepEqual(rules, want) || ignored != 4 {
		t.Errorf("ignored %d\n%+v\n%+v", ignored, rules, want)
	}
}

// tcpdchk(8) prints the rules as libwrap reads them.
func TestHostsOracle(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("tcpdchk")
	if err != nil {
		testkit.Missing(t, "tcpdchk is missing: install tcpd")
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		dir := t.TempDir()
		var want strings.Builder
		for _, file := range []string{"hosts.allow", "hosts.deny"} {
			text := generateHosts(r)
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
			rules, _ := parseHosts([]byte(text), file == "hosts.allow")
			for _, rule := range rules {
				access := "denied"
				if rule.action == "allow" || rule.action != "deny" && file == "hosts.allow" {
					access = "granted"
				}
				fmt.Fprintf(&want, "%s line %d|%s|%s|%s\n", file, rule.line, flattenPatterns(rule.services), flattenPatterns(rule.hosts), access)
			}
		}
		cmd := exec.Command(program, "-v", "-d")
		cmd.Dir = dir
		if os.Geteuid() == 0 {
			// It looks names up; there is nobody to ask here.
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
		}
		out, err := cmd.Output()
		must(t, err)
		if got := tcpdchkRules(string(out)); got != want.String() {
			t.Fatalf("seed %d:\n%s\ntcpdchk says\n%s\n%s", seed, want.String(), got, treeText(t, dir))
		}
	}
}

// flatten joins a list as it was before the excepted part was given to each.
func flattenPatterns(list []string) string {
	except := ""
	plain := make([]string, 0, len(list))
	for _, w := range list {
		before, after, ok := strings.Cut(w, " EXCEPT ")
		plain = append(plain, before)
		if ok {
			except = " EXCEPT " + after
		}
	}
	return strings.Join(plain, " ") + except
}

func tcpdchkRules(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		switch key, value, _ := strings.Cut(line, ":"); {
		case strings.HasPrefix(line, ">>> Rule "):
			b.WriteString(strings.TrimSuffix(strings.TrimPrefix(line, ">>> Rule "), ":"))
		case key == "daemons" || key == "clients":
			b.WriteString("|" + strings.TrimSpace(value))
		case key == "access":
			b.WriteString("|" + strings.TrimSpace(value) + "\n")
		}
	}
	return b.String()
}

// generateHosts writes rules without names that would have to be resolved.
func generateHosts(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	list := func(of ...string) string {
		var words []string
		for range 1 + r.IntN(3) {
			words = append(words, pick(of...))
		}
		if r.IntN(4) == 0 {
			words = append(words, "EXCEPT", pick(of...), pick(of...))
		}
		return strings.Join(words, pick(" ", ", ", ",", "\t", " \\\n ", "  "))
	}
	var b strings.Builder
	for range 1 + r.IntN(8) {
		switch r.IntN(8) {
		case 0:
			b.WriteString(pick("# comment: x", "", "   ", "no colon here", "\\", strings.Repeat("x", 2046+r.IntN(3)), strings.Repeat("10.0.0.1 ", 300)+": 10.0.0.9 : z"))
		default:
			b.WriteString(pick("", " ") + list("sshd", "vsftpd", "ALL", "in.telnetd") + pick(":", " : ") +
				list("10.0.0.1", "192.168.", ".example.org", "ALL", "[2001:db8::1]", "10.0.0.0/255.0.0.0", "[::1]/128", "KNOWN"))
			for range r.IntN(3) {
				b.WriteString(pick(":", " : ") + pick("spawn (/bin/echo a\\:b) &", "severity mail.info", "severity=auth.warning", "allow", "DENY",
					"keepalive", "linger 5", "nice", "nice 5", "bad", "allow=1", "spawn", "rfc931", "umask 022", "setenv A b"))
			}
		}
		if r.IntN(12) > 0 {
			b.WriteString("\n")
		} else {
			b.WriteString(" \n")
		}
	}
	return strings.TrimSuffix(b.String(), pick("", "", "\n"))
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("sshd, x EXCEPT y: [::1] : spawn a\\:b : allow\n\\\nALL:ALL\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, allow := range []bool{true, false} {
			rules, ignored := parseHosts(slices.Clone(b), allow)
			if len(rules)+ignored > len(b) {
				t.Errorf("%d rules, %d ignored", len(rules), ignored)
			}
			for _, r := range rules {
				if r.action == "" || r.line == 0 {
					t.Errorf("%+v", r)
				}
			}
		}
	})
}

// A file that only claims to be a program must not stop the collector.
func TestNeedsLibrary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "cut"), elfNeeding("libwrap.so.0")[:200], 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "good"), elfNeeding("libwrap.so.0"), 0o755))
	root := fixtureInput(dir, Settings{}).Rootfs
	for name, want := range map[string]string{"script": "false true", "cut": "false true", "good": "true false"} {
		got, err := needsLibrary(t.Context(), root, name, "libwrap.so")
		if s := fmt.Sprint(got, err != nil); s != want {
			t.Errorf("%s: %s (%v), want %s", name, s, err, want)
		}
	}
	if f, err := os.Open("/usr/sbin/tcpd"); err == nil {
		_, err = io.Copy(io.Discard, f)
		must(t, err)
		if got, err := needsLibrary(t.Context(), fixtureInput("/", Settings{}).Rootfs, "/usr/sbin/tcpd", "libwrap.so"); !got || err != nil {
			t.Errorf("tcpd: %v, %v", got, err)
		}
	}
}
