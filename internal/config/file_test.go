// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func parseRules(content string) ([]FileRule, error) {
	f, err := parseFile("c.yml", []byte(content), testKnown())
	if err != nil {
		return nil, err
	}
	return f.merge("c.yml")
}

func TestFileRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		want     []FileRule
	}{
		{"empty file", "", DefaultFileRules()},
		{"comment", "# nothing\n", DefaultFileRules()},
		{"null document", "~\n", DefaultFileRules()},
		{"empty section", "file_access:\n", DefaultFileRules()},
		{"empty rules", "file_access: {rules: }\n", DefaultFileRules()},
		{"document marker", "---\nfile_access: {defaults: false}\n", nil},
		{
			"one rule, defaults replaced",
			"file_access:\n  defaults: false\n  rules:\n  - path: /a\n    read: info\n    write: critical\n",
			[]FileRule{{"/a", SeverityInfo, SeverityCritical}},
		},
		{
			"empty means none",
			"file_access: {defaults: false, rules: [{path: /a, read: , write: info}, {path: /b, read: '', write: warning}]}",
			[]FileRule{{"/a", SeverityNone, SeverityInfo}, {"/b", SeverityNone, SeverityWarning}},
		},
		{
			"names with odd bytes",
			"file_access: {defaults: false, rules: [{path: \"/a b/c\\td/{e}/é\", read: info}]}",
			[]FileRule{{"/a b/c\td/{e}/é", SeverityInfo, SeverityNone}},
		},
	} {
		got, err := parseRules(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

const longName = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

func goodPaths() []string {
	return []string{"/a", "/a/", "~/", "~/a", "~/.ssh/", "/a/*", "/a/b?/", "~/*.key", "/" + longName, "/a~", "/...", "/a/.b", "/*"}
}

// badPaths are paths with what is said about them.
func badPaths() map[string]string {
	return map[string]string{
		"":                           "is empty",
		"a":                          "must begin with /",
		"./a":                        "must begin with /",
		"~":                          "must begin with /",
		"~root/a":                    "must begin with /",
		"$HOME/a":                    "must begin with /",
		" /a":                        "must begin with /",
		"/":                          "below /",
		"//":                         "contains //",
		"~//":                        "contains //",
		"/a//b":                      "contains //",
		"/a//":                       "contains //",
		"/.":                         `component "."`,
		"/a/./b":                     `component "."`,
		"/a/..":                      `component ".."`,
		"/../a/":                     `component ".."`,
		"~/../a":                     `component ".."`,
		"/" + longName + "n":         "component of 64 bytes",
		strings.Repeat("/aaa", 1024): "longer than 4095",
		"/a\x00b":                    "NUL",
		"/a/[bc]":                    "contains [",
		"/a[/b":                      "contains [",
		"/*/a":                       "only the last component",
		"~/?/a":                      "only the last component",
		"/a/**":                      "more than one *",
		"/home/*/.ssh/id":            "only the last component",
	}
}

func TestFileRulePaths(t *testing.T) {
	t.Parallel()
	for _, p := range goodPaths() {
		if err := checkRulePath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for p, want := range badPaths() {
		if err := checkRulePath(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", shorten(p), err, want)
		}
	}
}

func TestFileRulesOverride(t *testing.T) {
	t.Parallel()
	got, err := parseRules("file_access:\n  rules:\n" +
		"  - {path: /etc/passwd, write: warning}\n" + // replaced, not merged
		"  - {path: /etc/pam.d, read: info}\n" + // the same directory without its slash
		"  - {path: /etc/hosts, read: none, write: none}\n" + // switched off
		"  - {path: /new, read: critical}\n")
	if err != nil {
		t.Fatal(err)
	}
	var want []FileRule
	for _, r := range DefaultFileRules() {
		switch r.Path {
		case "/etc/passwd":
			r = FileRule{"/etc/passwd", SeverityNone, SeverityWarning}
		case "/etc/pam.d/":
			r = FileRule{"/etc/pam.d", SeverityInfo, SeverityNone}
		case "/etc/hosts":
			continue
		}
		want = append(want, r)
	}
	want = append(want, FileRule{"/new", SeverityCritical, SeverityNone})
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// badFile is a configuration file that is refused, and how.
type badFile struct{ name, in, want string }

func badFiles() []badFile {
	rules := func(s string) string { return "file_access:\n  rules:\n" + s }
	many := rules("")
	for i := range MaxFileRules + 1 {
		many += fmt.Sprintf("  - {path: /f%d, read: info}\n", i)
	}
	tooManyTogether := rules("")
	for i := range MaxFileRules {
		tooManyTogether += fmt.Sprintf("  - {path: /f%d, read: info}\n", i)
	}
	manyParams := "sysctl:\n  expect:\n"
	for i := range MaxSysctl + 1 {
		manyParams += fmt.Sprintf("    kernel.p%d: 1\n", i)
	}
	return []badFile{
		{"collectors is a list", "collectors: [ports]\n", "c.yml:1: collectors: is a list; want collectors with their settings"},
		{"unknown collector", "collectors:\n  port: {interval: 5m}\n", `c.yml:2: collectors: no collector is called "port"; want accounts, ports, sshd`},
		{"collector without settings", "collectors:\n  ports:\n", `c.yml:2: collectors.ports: ""; want the keys interval`},
		{"unknown setting", "collectors:\n  ports: {enabled: true}\n", `c.yml:2: collectors.ports: unknown key "enabled"; want interval`},
		{"interval without unit", "collectors:\n  ports: {interval: 60}\n", `c.yml:2: collectors.ports.interval: "60"; want a duration in whole seconds from 5s to 24h0m0s, such as 5m`},
		{"interval too short", "collectors:\n  ports: {interval: 4s}\n", `c.yml:2: collectors.ports.interval: "4s"; want a duration in whole seconds from 5s to 24h0m0s, such as 5m`},
		{"interval too long", "collectors:\n  ports: {interval: 25h}\n", `c.yml:2: collectors.ports.interval: "25h"; want a duration in whole seconds from 5s to 24h0m0s, such as 5m`},
		{"interval in parts of a second", "collectors:\n  ports: {interval: 5500ms}\n", `c.yml:2: collectors.ports.interval: "5500ms"; want a duration in whole seconds from 5s to 24h0m0s, such as 5m`},
		{"interval is a list", "collectors:\n  ports:\n    interval: [5s]\n", "c.yml:3: collectors.ports.interval: is a list; want a duration in whole seconds from 5s to 24h0m0s, such as 5m"},
		{"checks is a list", "checks: [a]\n", "c.yml:1: checks: is a list; want the keys waive"},
		{"unknown checks key", "checks:\n  skip: {}\n", `c.yml:2: checks: unknown key "skip"; want waive`},
		{"waive is a list", "checks:\n  waive: [sshd_root_login]\n", "c.yml:2: checks.waive: is a list; want check ids with a reason each"},
		{"unknown check", "checks:\n  waive:\n    sshd_rot_login: x\n", `c.yml:3: checks.waive: no check is called "sshd_rot_login"; docs/checks.md lists them`},
		{"waiver without a reason", "checks:\n  waive:\n    sshd_root_login:\n", `c.yml:3: checks.waive.sshd_root_login: ""; want the reason why it may fail`},
		{"waiver is a list", "checks:\n  waive:\n    sshd_root_login: [a]\n", "c.yml:3: checks.waive.sshd_root_login: is a list; want the reason why it may fail"},
		{"check twice", "checks:\n  waive: {sshd_root_login: a, sshd_root_login: b}\n", `c.yml:2: checks.waive: key "sshd_root_login" comes twice`},
		{"check is a list", "checks:\n  waive: {[a]: b}\n", "c.yml:2: checks.waive: is a list; want check ids with a reason each"},
		{"sysctl is a scalar", "sysctl: 1\n", `c.yml:1: sysctl: "1"; want the keys expect`},
		{"parameter is no name", "sysctl:\n  expect:\n    ../etc/passwd: 1\n", `c.yml:3: sysctl.expect: "../etc/passwd" is no name of a kernel parameter, such as kernel.sysrq`},
		{"parameter with a list", "sysctl:\n  expect:\n    kernel.sysrq: [0]\n", "c.yml:3: sysctl.expect.kernel.sysrq: is a list; want its value, or nothing to expect none"},
		{"too many parameters", manyParams, fmt.Sprintf("c.yml:%d: sysctl.expect: more than 200 parameters", MaxSysctl+3)},
		{"not YAML", "a: b: c\n", "c.yml:1: mapping values are not allowed in this context"},
		{"tab", "file_access:\n\tdefaults: true\n", "c.yml:2: found character that cannot start any token"},
		{"binary", "\x00\x01", "c.yml:1: contains the control character U+0000"},
		{"invalid UTF-8", "#\na: \xff\n", "c.yml:2: is not valid UTF-8"},
		{"list at top", "- a\n", "c.yml:1: is a list; want the keys file_access, checks, sysctl, collectors"},
		{"scalar at top", "hello\n", `c.yml:1: "hello"; want the keys file_access, checks, sysctl, collectors`},
		{"second document", "file_access:\n---\na: b\n", "c.yml:2: a second YAML document; write one"},
		{"unknown key at top", "file_acces:\n", `c.yml:1: unknown key "file_acces"; want file_access, checks, sysctl, collectors`},
		{"key twice", "file_access:\nfile_access:\n", `c.yml:2: key "file_access" comes twice`},
		{"section is a list", "file_access: [a]\n", "c.yml:1: file_access: is a list; want the keys defaults, rules"},
		{"unknown key", "file_access:\n  rule: []\n", `c.yml:2: file_access: unknown key "rule"; want defaults, rules`},
		{"defaults", "file_access:\n  defaults: yes\n", `c.yml:2: file_access.defaults: "yes"; want true or false`},
		{"defaults empty", "file_access:\n  defaults:\n", `c.yml:2: file_access.defaults: ""; want true or false`},
		{"rules is a mapping", rules("    path: /a\n"), "c.yml:3: file_access.rules: is a mapping; want a list of rules"},
		{"rule is a string", rules("  - /a\n"), `c.yml:3: file_access.rules[0]: "/a"; want the keys path, read, write`},
		{"no path", rules("  - {read: info}\n"), "c.yml:3: file_access.rules[0].path: is missing"},
		{"null path", rules("  - {path: ~, read: info}\n"), `c.yml:3: file_access.rules[0].path: "~"; want a path`},
		{"path is a list", rules("  - {path: [/a], read: info}\n"), "c.yml:3: file_access.rules[0].path: is a list; want a path"},
		{"relative path", rules("  - {path: etc/x, read: info}\n"), `c.yml:3: file_access.rules[0].path: "etc/x" must begin with / or, for every home directory, ~/`},
		{"severity", rules("  - path: /a\n    read: info\n    write: urgent\n"), `c.yml:5: file_access.rules[0].write: "urgent"; want critical, warning, info or none`},
		{"severity case", rules("  - {path: /a, read: Info}\n"), `c.yml:3: file_access.rules[0].read: "Info"; want critical, warning, info or none`},
		{"severity list", rules("  - {path: /a, read: [info]}\n"), "c.yml:3: file_access.rules[0].read: is a list; want critical, warning, info or none"},
		{"unknown rule key", rules("  - {path: /a, reed: info}\n"), `c.yml:3: file_access.rules[0]: unknown key "reed"; want path, read, write`},
		{"rule key twice", rules("  - {path: /a, path: /b, read: info}\n"), `c.yml:3: file_access.rules[0]: key "path" comes twice`},
		{"neither", rules("  - {path: /a}\n"), `c.yml:3: file_access.rules[0]: "/a" has neither read nor write; give at least one`},
		{"both empty", rules("  - {path: /a, read: , write: ''}\n"), `c.yml:3: file_access.rules[0]: "/a" has neither read nor write; give at least one`},
		{"path twice", rules("  - {path: /a, read: info}\n  - {path: /a, write: info}\n"), `c.yml:4: file_access.rules[1].path: "/a" is already in line 3`},
		{"directory twice", rules("  - {path: /a/, read: info}\n  - {path: /a, write: info}\n"), `c.yml:4: file_access.rules[1].path: "/a" is already in line 3`},
		{"off without default", rules("  - {path: /a, read: none}\n"), `c.yml:3: file_access.rules[0]: "/a" switches off a path that is not in the built-in list`},
		{"off with defaults off", "file_access:\n  defaults: false\n  rules:\n  - {path: /etc/hosts, read: none}\n", `c.yml:4: file_access.rules[0]: "/etc/hosts" switches off a path that is not in the built-in list`},
		{"alias", "file_access: &a\n  rules: *a\n", "c.yml:2: file_access.rules: YAML aliases are not supported; write the value out"},
		{"alias as rule", "file_access:\n  rules:\n  - &r {path: /a, read: info}\n  - *r\n", "c.yml:4: file_access.rules[1]: is an alias; want the keys path, read, write"},
		{"merge key", rules("  - {<<: {path: /a}, read: info}\n"), `c.yml:3: file_access.rules[0]: unknown key "<<"; want path, read, write`},
		{"too many", many, "c.yml:3: file_access.rules: 513 rules; at most 512"},
		{"too many together", tooManyTogether, fmt.Sprintf("c.yml: file_access.rules: %d rules together with the built-in ones; at most 512", MaxFileRules+len(DefaultFileRules()))},
		{"control characters are quoted", rules("  - {path: \"x\\e[31m\\n\", read: info}\n"), `c.yml:3: file_access.rules[0].path: "x\x1b[31m\n" must begin with / or, for every home directory, ~/`},
	}
}

func TestFileErrors(t *testing.T) {
	t.Parallel()
	for _, c := range badFiles() {
		got, err := parseRules(c.in)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.name, err, c.want)
		}
		if got != nil {
			t.Errorf("%s: half of it was applied: %v", c.name, got)
		}
	}
}

func TestLoadFileRulesRefusesFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "no such file or directory",
		dir:                           dir + ": is no regular file",
		fifo:                          fifo + ": is no regular file",
		large:                         large + ": is larger than 1048576 bytes",
	} {
		if err := new(Config).loadFile(path, testKnown()); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

func TestExampleFile(t *testing.T) {
	t.Parallel()
	var c Config
	if err := c.loadFile("../../docs/config.example.yml", testKnown()); err != nil {
		t.Fatal(err)
	}
	rules := c.FileRules
	if want := map[string]string{"sshd_root_login": "break-glass access, by key from the jump host only"}; !maps.Equal(c.Posture.Waivers, want) {
		t.Errorf("waivers %q", c.Posture.Waivers)
	}
	if want := map[string]string{"net.ipv4.ip_forward": "1", "kernel.sysrq": "176", "kernel.modules_disabled": ""}; !maps.Equal(c.Posture.Sysctl, want) {
		t.Errorf("sysctl %q", c.Posture.Sysctl)
	}
	if want := map[string]time.Duration{"accounts": time.Hour, "ports": 15 * time.Second}; !maps.Equal(c.Posture.Intervals, want) {
		t.Errorf("intervals %v", c.Posture.Intervals)
	}
	if c.File != "../../docs/config.example.yml" || len(c.FileHash) != 2*hashBytes {
		t.Errorf("file %q, hash %q", c.File, c.FileHash)
	}
	for _, want := range []FileRule{
		{"/etc/krb5.keytab", SeverityCritical, SeverityCritical},
		{"/etc/ssl/private/", SeverityWarning, SeverityCritical},
		{"/etc/nginx/*.conf", SeverityNone, SeverityWarning},
		{"~/.aws/credentials", SeverityWarning, SeverityWarning},
		{"/etc/passwd", SeverityNone, SeverityCritical},
	} {
		if !slices.Contains(rules, want) {
			t.Errorf("no rule %v", want)
		}
	}
	if slices.ContainsFunc(rules, func(r FileRule) bool { return r.Path == "/etc/fstab" }) {
		t.Error("/etc/fstab was not switched off")
	}
}

func TestDefaultFileRules(t *testing.T) {
	t.Parallel()
	got := make(map[string]string)
	for _, r := range DefaultFileRules() {
		if err := checkRulePath(r.Path); err != nil {
			t.Errorf("%s: %v", r.Path, err)
		}
		if _, dup := got[ruleKey(r.Path)]; dup {
			t.Errorf("%s comes twice", r.Path)
		}
		got[ruleKey(r.Path)] = r.Read.String() + " " + r.Write.String()
	}
	for path, want := range map[string]string{
		"/etc/shadow": "critical critical", "/etc/shadow-": "critical critical",
		"/etc/gshadow": "critical critical", "/etc/gshadow-": "critical critical",
		"/etc/passwd": "info critical",
		"/etc/group":  "none critical", "/etc/sudoers": "warning critical",
		"/etc/sudoers.d": "warning critical", "/etc/ld.so.preload": "none critical",
		"~/.ssh/authorized_keys": "none critical", "/etc/pam.d": "none critical",
		"/etc/ssh/sshd_config": "warning warning", "/etc/ssh/sshd_config.d": "warning warning",
		"/etc/crontab": "warning warning", "/etc/cron.*": "warning warning",
		"/etc/systemd/system": "none warning", "/usr/lib/systemd/system": "none warning",
		"/etc/hosts": "info info", "/etc/resolv.conf": "info info", "/etc/fstab": "info info",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	// The caller owns the slice.
	DefaultFileRules()[0].Path = "changed"
	if DefaultFileRules()[0].Path != "/etc/shadow" {
		t.Error("the list can be changed")
	}
}

func FuzzParseFile(f *testing.F) {
	example, err := os.ReadFile("../../docs/config.example.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(example), "", "a: b: c", "file_access: &a {rules: *a}", "file_access: {rules: [{path: /a, read: info}]}", "---\n---\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rules, err := parseRules(s)
		if err != nil {
			if rules != nil || strings.ContainsAny(err.Error(), "\n\r\x00") || !strings.HasPrefix(err.Error(), "c.yml:") {
				t.Errorf("rules %v with error %q", rules, err)
			}
			return
		}
		if len(rules) > MaxFileRules {
			t.Errorf("%d rules", len(rules))
		}
		seen := make(map[string]bool)
		for _, r := range rules {
			if err := checkRulePath(r.Path); err != nil {
				t.Errorf("%q: %v", r.Path, err)
			}
			if seen[ruleKey(r.Path)] {
				t.Errorf("%q comes twice", r.Path)
			}
			seen[ruleKey(r.Path)] = true
			if r.Read == SeverityNone && r.Write == SeverityNone || r.Read > SeverityInfo || r.Write > SeverityInfo {
				t.Errorf("rule %v", r)
			}
		}
	})
}
