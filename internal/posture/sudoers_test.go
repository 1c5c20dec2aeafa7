// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func noInclude(string, bool) error { return nil }

// judgeText judges an account of oraclePasswd on the host web1.
func judgeText(t *testing.T, text, user string, sources map[string][]string) sudoVerdict {
	t.Helper()
	policy := newSudoers()
	if err := parseSudoers("sudoers", text, policy, noInclude); err != nil {
		t.Error(err)
	}
	db := &accountDB{sources: sources}
	db.users, _, _ = parsePasswd(strings.NewReader(oraclePasswd))
	db.groups, _, _ = parseGroup(strings.NewReader(oracleGroup))
	db.index()
	j, err := newSudoJudge(policy, db, []string{"web1.example.org"}, fixtureNow)
	if err != nil {
		t.Error(err)
	}
	return j.user(user)
}

// Verdicts on alice that sudo(8) cannot be asked for in a test: what no local
// file decides, time, and scopes of Defaults.
func TestSudoJudge(t *testing.T) {
	t.Parallel()
	ldap := map[string][]string{"group": {"files", "ldap"}, "sudoers": {"files", "sss"}}
	for _, c := range []struct {
		text               string
		sources            map[string][]string
		any, all, nopasswd answer
	}{
		{"alice ALL=(ALL) ALL", nil, answerYes, answerYes, answerNo},
		{"alice ALL=(ALL) NOPASSWD: ALL, PASSWD: /bin/su", nil, answerYes, answerYes, answerYes},
		{"+admins ALL=ALL", nil, answerUnknown, answerUnknown, answerNo},
		{"+admins ALL=NOPASSWD: ALL", nil, answerUnknown, answerUnknown, answerUnknown},
		{"%:win ALL=ALL", nil, answerUnknown, answerUnknown, answerNo},
		{"alice 10.0.0.0/8=/bin/ls", nil, answerUnknown, answerNo, answerNo},
		{"alice ALL=ALL\n+admins ALL=!ALL", nil, answerUnknown, answerUnknown, answerNo},
		{"+admins ALL=ALL\nalice ALL=!ALL", nil, answerNo, answerNo, answerNo},
		{"ALL, !+admins ALL=ALL", nil, answerUnknown, answerUnknown, answerNo},
		{"ALL, !+admins, alice ALL=ALL", nil, answerYes, answerYes, answerNo},
		{"%none ALL=ALL", nil, answerNo, answerNo, answerNo},
		{"%none ALL=ALL", ldap, answerUnknown, answerUnknown, answerUnknown},
		{"%adm ALL=ALL", map[string][]string{"group": {"files", "ldap"}}, answerNo, answerNo, answerNo},
		{"alice ALL=ALL", ldap, answerYes, answerYes, answerUnknown},
		{"", ldap, answerUnknown, answerUnknown, answerUnknown},
		{"alice ALL=NOTBEFORE=20260102030406Z ALL", nil, answerNo, answerNo, answerNo},
		{"alice ALL=NOTBEFORE=20260102030405Z NOTAFTER=2026010203+0000 ALL", nil, answerNo, answerNo, answerNo},
		{"alice ALL=NOTBEFORE=20260102030405Z NOTAFTER=202701010000Z ALL", nil, answerYes, answerYes, answerNo},
		{"alice ALL=list", nil, answerNo, answerNo, answerNo},
		{"alice ALL=(op, !op) ALL", nil, answerNo, answerNo, answerNo},
		{"alice ALL=(ALL) ALL\nalice ALL=(root) !ALL\nalice ALL=(ALL, !root) !ALL", nil, answerNo, answerNo, answerNo},
		{"alice ALL=(ALL) ALL\nalice ALL=(ALL, !%wheel) !ALL", nil, answerYes, answerYes, answerNo},
		{"Defaults!/bin/ls !authenticate\nalice ALL=ALL", nil, answerYes, answerYes, answerYes},
		{"Defaults!/bin/ls !authenticate\nalice ALL=/bin/cat", nil, answerYes, answerNo, answerNo},
		{"Defaults !authenticate\nDefaults!ALL authenticate\nalice ALL=ALL", nil, answerYes, answerYes, answerNo},
		{"Defaults>op !authenticate\nalice ALL=(ALL) ALL", nil, answerYes, answerYes, answerYes},
		{"Defaults>op !authenticate\nalice ALL=(root) ALL", nil, answerYes, answerYes, answerNo},
		{"Defaults runas_default=op\nDefaults>op !authenticate\nalice ALL=ALL", nil, answerYes, answerYes, answerYes},
		{"Defaults:+admins !authenticate\nalice ALL=ALL", nil, answerYes, answerYes, answerUnknown},
		{"Defaults !case_insensitive_user\nAlice ALL=ALL", nil, answerNo, answerNo, answerNo},
		{"Alice ALL=ALL", nil, answerYes, answerYes, answerNo},
		{"Defaults fqdn\nalice web1.other.org=ALL", nil, answerUnknown, answerUnknown, answerNo},
		{"alice web1.EXAMPLE.org=ALL", nil, answerYes, answerYes, answerNo},
	} {
		v := judgeText(t, c.text+"\n", "alice", c.sources)
		if v.any != c.any || v.all != c.all || v.nopasswd != c.nopasswd {
			t.Errorf("%q: any %s, all %s, nopasswd %s; want %s, %s, %s", c.text, v.any, v.all, v.nopasswd, c.any, c.all, c.nopasswd)
		}
	}
}

func TestSudoersGlobal(t *testing.T) {
	t.Parallel()
	policy := newSudoers()
	err := parseSudoers("sudoers", "Defaults use_pty, logfile=/a, !lecture\r\nDefaults:bob !use_pty\nDefaults logfile=\"/b c\", env_keep += X\n", policy, noInclude)
	if err != nil {
		t.Fatal(err)
	}
	if !policy.flag("use_pty", false) || policy.flag("lecture", true) || !policy.flag("missing", true) {
		t.Error("flags are wrong")
	}
	if value, on, set := policy.global("logfile"); value != "/b c" || !on || !set {
		t.Errorf("logfile %q %v %v", value, on, set)
	}
}

// Aliases that double at each level, that hold one another and files that
// include one another end soon and with an error.
func TestSudoersHostile(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"User", "Runas", "Host", "Cmnd"} {
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, "%s_Alias A%d = A%d, A%d, !A%d\n", kind, i, i+1, i+1, i)
		}
		policy := newSudoers()
		lists := map[string]string{
			"User": "A0 ALL=(ALL) ALL", "Runas": "alice ALL=(A0) ALL", "Host": "alice A0=ALL", "Cmnd": "alice ALL=A0",
		}
		must(t, parseSudoers("sudoers", b.String()+lists[kind]+"\n", policy, noInclude))
		db := &accountDB{}
		db.users, _, _ = parsePasswd(strings.NewReader(oraclePasswd))
		db.index()
		j, err := newSudoJudge(policy, db, []string{"web1"}, fixtureNow)
		if (err != nil) != (kind == "Cmnd") {
			t.Errorf("%s: %v", kind, err)
		}
		if v := j.user("alice"); kind != "Runas" && v.any != answerNo {
			t.Errorf("%s: %+v", kind, v)
		}
	}
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	for i := range 40 {
		text := strings.Repeat(fmt.Sprintf("@include /etc/f%d\n", (i+1)%40), 2) + fmt.Sprintf("@include /etc/f%d\n", (i+2)%40)
		put(t, filepath.Join(root, fmt.Sprintf("etc/f%d", i)), text)
	}
	put(t, filepath.Join(root, "etc/sudoers"), "@include /etc/f0\nroot ALL=ALL\n")
	var policy *sudoers
	var err error
	took := threadTime(t, func() { policy, err = readSudoers(t.Context(), fixtureInput(root, Settings{}).Rootfs, "web1") })
	if err == nil || policy == nil || len(policy.files) > maxSudoersFiles+1 || len(policy.rules) != 1 {
		t.Errorf("%v", err)
	}
	if n := strings.Count(fmt.Sprint(err), "\n"); n > 200 {
		t.Errorf("an error of %d lines", n)
	}
	if took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func FuzzParseSudoers(f *testing.F) {
	f.Add("Defaults:bob !authenticate\nUser_Alias A = bob, !%g : B = #1\nA ALL = (op:adm) NOPASSWD: /bin/ls -l, !ALL \\\n\n")
	f.Add("#include x\n@includedir \"a b\"\nbob 10.0.0.0/8,fe80::1 = sha224:aa /x, ^/a$ ^b$, CWD=/ list : ALL=()ALL")
	f.Add("Cmnd_Alias C=D\nCmnd_Alias D=C,!/bin/\nalice ALL=C,(ALL,!op)D\nDefaults!C !authenticate\n")
	b, err := os.ReadFile("testdata/sudo/odd/rootfs/etc/sudoers")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Fuzz(func(t *testing.T, s string) {
		policy := newSudoers()
		_ = parseSudoers("sudoers", s, policy, func(name string, _ bool) error {
			if name == "" {
				t.Errorf("includes nothing: %q", s)
			}
			return nil
		})
		for _, r := range policy.rules {
			if r.line < 1 || r.line > strings.Count(s, "\n")+1 || len(r.users) == 0 || len(r.grants) == 0 {
				t.Errorf("%+v from %q", r, s)
			}
		}
		db := &accountDB{sources: map[string][]string{}}
		db.users, _, _ = parsePasswd(strings.NewReader(oraclePasswd))
		db.groups, _, _ = parseGroup(strings.NewReader(oracleGroup))
		db.index()
		j, err := newSudoJudge(policy, db, []string{"web1"}, fixtureNow)
		for _, u := range db.users {
			if v := j.user(u.name); err == nil && (v.all > v.any || v.nopasswd > v.any || v.nopasswdAll > min(v.all, v.nopasswd)) {
				t.Errorf("%+v from %q", v, s)
			}
		}
	})
}
