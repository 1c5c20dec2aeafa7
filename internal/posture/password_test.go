// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

func TestPassword(t *testing.T) {
	t.Parallel()
	golden(t, passwordCollector)
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]secret{
		"":                                 {state: secretEmpty},
		"!":                                {state: secretNone, locked: true},
		"!!":                               {state: secretNone, locked: true},
		"!*":                               {state: secretNone, locked: true},
		"*":                                {state: secretNone},
		"*LK*":                             {state: secretNone},
		"x":                                {state: secretNone},
		"$6$":                              {state: secretNone},
		"$6$a$b":                           {state: secretHash, scheme: "sha512crypt"},
		"!$6$a$b":                          {state: secretHash, scheme: "sha512crypt", locked: true},
		"$y$j9T$a$b":                       {state: secretHash, scheme: "yescrypt"},
		"$gy$j9T$a$b":                      {state: secretHash, scheme: "gost_yescrypt"},
		"$7$a":                             {state: secretHash, scheme: "scrypt"},
		"$2y$10$abc":                       {state: secretHash, scheme: "bcrypt"},
		"$5$rounds=5000$a$b":               {state: secretHash, scheme: "sha256crypt"},
		"$sha1$1$a$b":                      {state: secretHash, scheme: "sha1crypt"},
		"$md5,rounds=5$a$$b":               {state: secretHash, scheme: "sunmd5"},
		"$1$a$b":                           {state: secretHash, scheme: "md5crypt"},
		"$3$$8846f7eaee8fb117ad06bdd830b7": {state: secretHash, scheme: "nt"},
		"$new$a":                           {state: secretHash, scheme: "other"},
		"ab0123456789.":                    {state: secretHash, scheme: "descrypt"},
		"ab0123456789:":                    {state: secretNone},
		"_J9..rasmBYk8r9AiWNc":             {state: secretHash, scheme: "bsdicrypt"},
	} {
		if got := parseSecret(field, false); got != want {
			t.Errorf("%q: %+v, want %+v", field, got, want)
		}
	}
	if parseSecret("x", true).state != secretElsewhere || parseSecret("##u", true).state != secretElsewhere || parseSecret("", true).state != secretEmpty {
		t.Error("the field of passwd is read wrongly")
	}
}

func TestShadowStates(t *testing.T) {
	t.Parallel()
	const today = 20000
	for _, c := range []struct {
		line                string
		expired, mustChange bool
	}{
		{"u:*:0:0:99999:7:::", false, true},
		{"u:*::0:90:7:::", false, false},
		{"u:*:19910:0:90:7:::", false, false},
		{"u:*:19909:0:90:7:::", false, true},
		{"u:*:19909:0:90:7:0::", true, false},
		{"u:*:19909:0:90:7:1::", false, true},
		{"u:*:19908:0:90:7:1::", true, false},
		{"u:*:0:0:90:7:1::", false, true},
		{"u:*:19000:0::7:1::", false, false},
		{"u:*:19999:0:99999:7::20001:", false, false},
		{"u:*:19999:0:99999:7::20000:", true, false},
		{"u:*:0:0:99999:7::1:", true, false},
		{"u:*:19999:0:99999:7::0:", true, false},
		{"u:*:20500:0:90:7:0::", false, false},
	} {
		entries, _, err := parseShadow(strings.NewReader(c.line))
		if err != nil || len(entries) != 1 {
			t.Fatal(err)
		}
		if e := &entries[0]; e.expired(today) != c.expired || e.mustChange(today) != c.mustChange {
			t.Errorf("%s: expired %v, must change %v", c.line, e.expired(today), e.mustChange(today))
		}
	}
}

// chage(1) and passwd(1) read generated files below a root of their own.
// Fields as getent(1) shows them: it takes what strtoul(3) takes, and leaves
// out a line with anything else.
func TestShadowDays(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": noDays, "0": 0, "99999": 99999, " 5": 5, "+9": 9, "-0": 0, "2147483647": 2147483647} {
		if got, err := parseDays(text); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"-1", "abc", "5 ", "1x", "2147483648", "99999999999", "+", " "} {
		if got, err := parseDays(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestShadowOracle(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for chroot")
	}
	for _, tool := range []string{"chage", "passwd"} {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, "%s is missing: install passwd", tool)
		}
	}
	for seed := range uint64(6) {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
		generateShadow(t, dir, rand.New(rand.NewPCG(seed, 5)))
		b, err := os.ReadFile(filepath.Join(dir, shadowFile))
		must(t, err)
		entries, _, err := parseShadow(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		status := shadowTool(t, "passwd", "-R", dir, "-S", "-a")
		for _, e := range entries {
			if want := passwdStatus(e); !slices.Contains(strings.Split(status, "\n"), want) {
				t.Errorf("seed %d: %q is not in\n%s", seed, want, status)
			}
			if got, want := chageText(e), shadowTool(t, "chage", "-R", dir, "-i", "-l", e.name); got != want {
				t.Errorf("seed %d, %s:\n%s\nchage says\n%s", seed, e.name, got, want)
			}
		}
	}
}

func generateShadow(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	days := func() string { return fmt.Sprint(1 + r.IntN(30000)) }
	var passwd, shadow strings.Builder
	for i := range 25 {
		fmt.Fprintf(&passwd, "u%d:x:%d:%d::/:/bin/sh\n", i, i, i)
		fields := []string{
			fmt.Sprint("u", i), pick("", "*", "!", "!!", "!*", "$6$a$b", "!$6$a$b", "ab0123456789."), pick("", "0", days()),
			pick("", "0", "1"), pick("", "0", "90", "99999", "99999"), pick("", "0", "7"), pick("", "", "0", "30"), pick("", "", "0", days()), "",
		}
		shadow.WriteString(strings.Join(fields, ":") + "\n")
	}
	put(t, filepath.Join(dir, passwdFile), passwd.String())
	put(t, filepath.Join(dir, groupFile), "u0:x:0:\n")
	put(t, filepath.Join(dir, shadowFile), shadow.String())
}

func shadowTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func isoDay(days int64) string { return time.Unix(days*secondsOfDay, 0).UTC().Format(time.DateOnly) }

// passwdStatus is a line of passwd -S. It shows * as locked, which is what
// no_password is here.
func passwdStatus(e shadowEntry) string {
	state := "P"
	switch {
	case e.secret.state == secretEmpty && !e.secret.locked:
		state = "NP"
	case e.secret.locked || e.secret.state == secretNone:
		state = "L"
	}
	last := "never"
	if e.lastChange != noDays {
		last = isoDay(e.lastChange)
	}
	return fmt.Sprintf("%s %s %s %d %d %d %d", e.name, state, last, e.minAge, e.maxAge, e.warning, e.inactive)
}

// chageText is what chage -i -l prints.
func chageText(e shadowEntry) string {
	date := func(days int64) string {
		if days == noDays {
			return "never"
		}
		return isoDay(days)
	}
	const must = "password must be changed"
	last, expires, inactive := date(e.lastChange), "never", "never"
	if e.lastChange == 0 {
		last, expires, inactive = must, must, must
	} else if e.lastChange != noDays && e.maxAge != noDays && e.maxAge < 10000 {
		expires = isoDay(e.lastChange + e.maxAge)
		if e.inactive != noDays {
			inactive = isoDay(e.lastChange + e.maxAge + e.inactive)
		}
	}
	return fmt.Sprintf("Last password change\t\t\t\t\t: %s\nPassword expires\t\t\t\t\t: %s\nPassword inactive\t\t\t\t\t: %s\nAccount expires\t\t\t\t\t\t: %s\n"+
		"Minimum number of days between password change\t\t: %d\nMaximum number of days between password change\t\t: %d\nNumber of days of warning before password expires\t: %d",
		last, expires, inactive, date(e.expires), e.minAge, e.maxAge, e.warning)
}

func FuzzParseShadow(f *testing.F) {
	f.Add("root:$6$a$b:20000:0:99999:7:::\nx::0:-1::::0:\n+::::::::\n")
	f.Add("a:!\n:b\nc:*:-2\nd:*:99999999999\n\x00e:")
	f.Fuzz(func(t *testing.T, s string) {
		entries, _, _ := parseShadow(strings.NewReader(s))
		for _, e := range entries {
			for _, n := range []int64{e.lastChange, e.minAge, e.maxAge, e.warning, e.inactive, e.expires} {
				if n < noDays || n > 1<<31 {
					t.Errorf("%+v from %q", e, s)
				}
			}
			if (e.secret.state == secretHash) != slices.Contains(hashSchemes, e.secret.scheme) || e.expired(20000) && e.mustChange(20000) {
				t.Errorf("%+v from %q", e, s)
			}
		}
	})
}
