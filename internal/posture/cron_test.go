// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

// executable gives every file that begins with "#!" its mode.
func executable(t *testing.T, _, rootfs string) {
	t.Helper()
	for _, pattern := range []string{"etc/cron.*/*", "etc/periodic/*/*"} {
		files, err := filepath.Glob(filepath.Join(rootfs, pattern))
		must(t, err)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), "#!") {
				must(t, os.Chmod(f, 0o755))
			}
		}
	}
}

func TestCron(t *testing.T) {
	t.Parallel()
	golden(t, cronCollector, prepared(executable))
}

// Arguments are shown only on demand, and the text behind % never.
func TestCronFullCommand(t *testing.T) {
	t.Parallel()
	rootfs := "testdata/cron/debian12/rootfs"
	got := string(exposition(t, cronCollector(), fixtureInput(rootfs, Settings{})))
	for _, secret := range []string{"hunter2", "secret", "Hello", "report"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is shown in\n%s", secret, got)
		}
	}
	got = string(exposition(t, cronCollector(), fixtureInput(rootfs, Settings{CronFullCommand: true})))
	for _, want := range []string{`command="mail -s \"report"`, `command="/home/alice/bin/agent --token=secret"`, `command="/usr/sbin/logrotate /etc/logrotate.conf"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

func TestParseCronLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line          string
		form          cronForm
		user, command string
		ok            bool
	}{
		{"5 4 * * sun root  /bin/x  a", cronSystem, "root", "/bin/x  a", true},
		{"5 4 * * 0\t/bin/x a", cronUser, "", "/bin/x a", true},
		{"@reboot root /bin/x", cronSystem, "root", "/bin/x", true},
		{"@reboot /bin/x", cronUser, "", "/bin/x", true},
		{"@never /bin/x", cronUser, "", "", false},
		{"-5 * * * * /bin/x", cronUser, "", "/bin/x", true},
		{"0~30 */2 1,15 jan-mar Mon-Fri /bin/x", cronUser, "", "/bin/x", true},
		{"~ ~5 * * * /bin/x", cronUser, "", "/bin/x", true},
		{`0 0 * * * date +\%F > x%in%put`, cronUser, "", "date +%F > x", true},
		{"0 0 * * *", cronUser, "", "", false},
		{"0 0 * * * root", cronSystem, "root", "", false},
		{"0 0 * * * %input", cronUser, "", "", false},
		{"60 * * * * x", cronUser, "", "", false},
		{"* * 0 * * x", cronUser, "", "", false},
		{"*/0 * * * * x", cronUser, "", "", false},
		{"1,,2 * * * * x", cronUser, "", "", false},
		{"7\t25\tcron.weekly\tnice run-parts %x", cronAnacron, "root", "nice run-parts %x", true},
		{"@monthly 45 id cmd", cronAnacron, "root", "cmd", true},
		{"0 45 id cmd", cronAnacron, "root", "", false},
		{"1 x id cmd", cronAnacron, "root", "cmd", false},
	} {
		got, ok := parseCronLine(c.line, c.form)
		if ok != c.ok || ok && (got.user != c.user || got.command != c.command) {
			t.Errorf("%q: %+v %v, want %+v", c.line, got, ok, c)
		}
	}
}

func TestShellProgram(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"/bin/x -a b":                          "/bin/x",
		"cd / && run-parts --report /etc":      "run-parts",
		"[ -x /usr/sbin/p ] && /usr/sbin/p -q": "/usr/sbin/p",
		"test -x /usr/sbin/anacron || { cd / && run-parts /etc/cron.daily; }": "run-parts",
		"if [ -x /a ] ; then /a b; fi":                                        "/a",
		"! /a b":                                                              "/a",
		"( /a b )":                                                            "/a",
		"(cd /x;/a b)":                                                        "/a",
		"A=1 B='two words' /a":                                                "/a",
		"PASSWORD=secret":                                                     unknownProgram,
		"export PASSWORD=secret; /a":                                          "/a",
		"umask 022; . /etc/profile; /a":                                       "/a",
		"sleep $((RANDOM % 60)); /a":                                          "/a",
		">/dev/null 2>&1 /a b":                                                "/a",
		"2>/tmp/log /a":                                                       "/a",
		"/a>/dev/null":                                                        "/a",
		"/a|mail secret":                                                      "/a",
		"/a&":                                                                 "/a",
		"exec /a b":                                                           "/a",
		"nice -n 19 ionice -c2 -n 7 /a b":                                     "/a",
		"nice -19 /a":                                                         "/a",
		"/usr/bin/env -i A=secret /a":                                         "/a",
		"env -u B A=1 /a":                                                     "/a",
		"timeout -k 5 1h /a b":                                                "/a",
		"flock -n /run/lock /a b":                                             "/a",
		"sudo -u bob -- /a b":                                                 "/a",
		"sh -c 'cd /x && exec /a --secret'":                                   "/a",
		`/bin/bash -lc "/a --secret"`:                                         "/a",
		"busybox sh -c /a":                                                    "/a",
		"bash /srv/script.sh secret":                                          "bash",
		"command -v debian-sa1 > /dev/null && debian-sa1 1 1": "debian-sa1",
		"which x >/dev/null && x":                             "x",
		"command /a b":                                        "/a",
		`"/opt/my tool/run" a`:                                "/opt/my tool/run",
		`/opt/my\ tool/run a`:                                 "/opt/my tool/run",
		"$HOME/bin/x":                                         "$HOME/bin/x",
		"$(cat /secret) x":                                    unknownProgram,
		"`cat /secret` x":                                     unknownProgram,
		"[ -x /a ]":                                           "[",
		"cd /":                                                "cd",
		"# nothing":                                           unknownProgram,
		"":                                                    unknownProgram,
		"   ; ; ":                                             unknownProgram,
		"nice":                                                "nice",
		"while true; do /a; done":                             "/a",
		`echo "it's" | /a`:                                    "echo",
		"sh -c \"sh -c 'sh -c /a'\"":                          "/a",
	} {
		if got := shellProgram(command); got != want {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}

func TestCronReads(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]bool{
		"php": {true, true}, "e2scrub_all": {true, true}, "a.b": {false, true}, "x~": {false, false},
		"x.rpmnew": {false, false}, "#x": {false, false}, "x.dpkg-old": {false, true},
	} {
		if got := [2]bool{cronReads(name, true), cronReads(name, false)}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// crontab(1) -n says whether Debian's cron takes a file.
func TestCronOracle(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("crontab")
	if err != nil {
		testkit.Missing(t, "crontab is missing: install cron")
	}
	if out, _ := exec.Command(program, "-h").CombinedOutput(); !strings.Contains(string(out), "-n") {
		testkit.Missing(t, "this crontab has no -n: install cron of Debian 12")
	}
	r := rand.New(rand.NewPCG(5, 5))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	file := filepath.Join(t.TempDir(), "crontab")
	valid := 0
	for range 300 {
		var b strings.Builder
		switch r.IntN(8) {
		case 0:
			b.WriteString(pick("@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@Daily", "@never") + pick(" ", "\t") + "x")
		case 1:
			b.WriteString(pick("A=b", "A = b", `"A"=b`, `"A b" = 'c'`, "A=", "A b=c", " A\t=\tb c"))
		default:
			for f := range 5 {
				field := cronFields[f]
				n := func() string { return fmt.Sprint(field.low - 1 + r.IntN(field.high-field.low+3)) }
				name := "sunday"
				if names := strings.Fields(field.names); len(names) > 0 && r.IntN(3) > 0 {
					name = names[r.IntN(len(names))]
				} else if r.IntN(10) > 0 {
					name = "*"
				}
				b.WriteString(pick("*", "*", "*", n(), n()+","+n(), n()+"-"+n(), "*/5", n()+"-"+n()+"/2", name, name) + pick(" ", "\t", "  "))
			}
			b.WriteString(pick("x", "/bin/x a", "x%y"))
		}
		line := b.String()
		if strings.HasPrefix(strings.TrimSpace(line), "-") {
			// Only cronie knows the minus sign before the minute.
			continue
		}
		must(t, os.WriteFile(file, []byte(line+"\n"), 0o600))
		want := exec.Command(program, "-n", file).Run() == nil
		_, invalid, err := parseCrontab(strings.NewReader(line), cronUser)
		must(t, err)
		if got := invalid == 0; got != want {
			t.Errorf("%q: valid %v, crontab says %v", line, got, want)
		}
		if want {
			valid++
		}
	}
	if valid < 50 {
		t.Errorf("only %d lines were valid", valid)
	}
}

func FuzzParseCrontab(f *testing.F) {
	f.Add("A=b\n*/5 * * * 1-5 root cd / && sh -c \"x 'y'\" %z\n@daily a b\n1 5 id nice -n 5 x\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, form := range []cronForm{cronUser, cronSystem, cronAnacron} {
			jobs, invalid, _ := parseCrontab(strings.NewReader(s), form)
			if lines := strings.Count(s, "\n") + 1; len(jobs)+invalid > lines {
				t.Errorf("%d jobs and %d others in %d lines", len(jobs), invalid, lines)
			}
			for _, j := range jobs {
				if j.command == "" || form != cronUser && j.user == "" {
					t.Errorf("%+v", j)
				}
				if p := shellProgram(j.command); p == "" || len(p) > len(j.command)+len(unknownProgram) {
					t.Errorf("%q from %q", p, j.command)
				}
				execProgram(j.command)
			}
		}
	})
}
