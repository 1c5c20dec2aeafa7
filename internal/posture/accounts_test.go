// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/testkit"
)

func TestAccounts(t *testing.T) {
	t.Parallel()
	golden(t, accountsCollector)
}

func TestLoginShell(t *testing.T) {
	t.Parallel()
	listed := []string{"/bin/sh", "/sbin/nologin", "/opt/nologin"}
	for shell, want := range map[string]shellKind{
		"": shellListed, "/bin/sh": shellListed, "/usr/bin/sh": shellUnlisted, "/sbin/nologin": shellNone, "/usr/sbin/nologin": shellNone,
		"/bin/false": shellNone, "/usr/bin/sync": shellNone, "/dev/null": shellNone, "/opt/nologin": shellListed, "/tmp/false": shellUnlisted, "sh": shellUnlisted,
	} {
		if got := loginShell(shell, listed); got != want {
			t.Errorf("%q: %d, want %d", shell, got, want)
		}
	}
}

func TestParseShells(t *testing.T) {
	t.Parallel()
	got, err := parseShells(strings.NewReader("# /bin/no\n/bin/sh\n  /bin/a # c\n/bin/b x\nnone\n\n/bin/c#d"))
	if want := []string{"/bin/sh", "/bin/a", "/bin/b", "/bin/c"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParseNSSwitch(t *testing.T) {
	t.Parallel()
	got, err := parseNSSwitch(strings.NewReader("# passwd: no\npasswd: files [!UNAVAIL=return] sss # x\ngroup:files[SUCCESS=merge]systemd\nnone\nshadow:\nsudoers : files\nbad: a [b\npasswd: compat sss"))
	want := map[string][]string{"passwd": {"compat", "sss"}, "group": {"files", "systemd"}, "shadow": nil, "sudoers": {"files"}, "bad": {"a"}}
	if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, %v", got, err)
	}
}

// A mistake in every line gives an error of a few lines, none with the text
// of the file.
func TestAccountProblems(t *testing.T) {
	t.Parallel()
	_, _, err := parseShadow(strings.NewReader(strings.Repeat("user:$6$secret:bad\n", 1000)))
	text := fmt.Sprint(err)
	if strings.Contains(text, "secret") || strings.Contains(text, "bad") || strings.Count(text, "\n") != maxProblems || !strings.Contains(text, "990 further lines") {
		t.Error(text)
	}
}

// The accounts and groups that getent(1) lists for generated files are those
// that are parsed, and the groups of each account are those of initgroups.
func TestAccountsOracle(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if _, err := exec.LookPath("getent"); err != nil {
		testkit.Missing(t, "getent is missing: install libc-bin")
	}
	for seed := range uint64(30) {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
		generateAccounts(t, dir, rand.New(rand.NewPCG(seed, 3)))
		db, err := readAccounts(t.Context(), hostfs.New(hostfs.Paths{Rootfs: dir}).Rootfs)
		if db == nil {
			t.Fatal(err)
		}
		got, want := describeAccounts(db), getent(t, dir)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d:\n%s\ngetent says\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func generateAccounts(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	name := func() string { return fmt.Sprint(pick("", "", " ", "\t")+"u", r.IntN(12)) }
	id := func() string {
		return pick(fmt.Sprint(r.IntN(8)), fmt.Sprint(r.IntN(3000)), "0", "007", " 5", "+6", "-0", "-3", "", "1x", "4294967296", "0x8")
	}
	var passwd, group strings.Builder
	for range 30 {
		fields := []string{name(), pick("x", "", "!"), id(), id(), pick("", "Name,,,"), pick("/", "", "/home/x"), pick("", "/bin/sh", "/bin/sh ")}
		passwd.WriteString(strings.Join(fields[:max(1, 7-max(0, r.IntN(8)-4))], ":") + "\n" + pick("", "", "\n", "# c\n", "  # d:x:1:1:::\n"))
		members := make([]string, r.IntN(5))
		for i := range members {
			members[i] = pick("", " ", "") + fmt.Sprint("u", r.IntN(12)) + pick("", "", " x")
		}
		fields = []string{pick("", " ") + fmt.Sprint("g", r.IntN(20)), pick("x", "", "!"), id(), strings.Join(members, pick(",", ",,", ", "))}
		group.WriteString(strings.Join(fields[:max(1, 4-max(0, r.IntN(8)-6))], ":") + "\n")
	}
	put(t, filepath.Join(dir, passwdFile), passwd.String()+"last:x:99:99")
	put(t, filepath.Join(dir, groupFile), group.String())
}

func describeAccounts(db *accountDB) []string {
	var out []string
	for i, u := range db.users {
		out = append(out, fmt.Sprintf("%s:%d:%d:%s:%s", u.name, u.uid, u.gid, u.home, u.shell))
		if db.userByName[u.name] != i {
			continue
		}
		var gids []int
		for _, g := range db.memberOf[u.name] {
			gids = append(gids, int(db.groups[g].gid))
		}
		slices.Sort(gids)
		out = append(out, strings.TrimSpace(fmt.Sprint(u.name, " in ", slices.Compact(gids))))
	}
	for _, g := range db.groups {
		out = append(out, fmt.Sprintf("%s:%d:%s", g.name, g.gid, strings.Join(g.members, ",")))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// getent returns what glibc sees in the files below dir, in the words of
// describeAccounts.
func getent(t *testing.T, dir string) []string {
	t.Helper()
	const script = `mount --bind "$0/etc/passwd" /etc/passwd && mount --bind "$0/etc/group" /etc/group || exit 1
getent -s files passwd
echo =
getent -s files group
echo =
getent -s files passwd | cut -d: -f1 | sort -u | while read -r name; do getent -s files initgroups "$name"; done`
	cmd := exec.Command("sh", "-c", script, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	b, err := cmd.Output()
	parts := strings.Split(string(b), "=\n")
	if err != nil || len(parts) != 3 {
		t.Fatalf("%v: %s", err, b)
	}
	var out []string
	for line := range strings.Lines(parts[0]) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		out = append(out, strings.Join([]string{f[0], f[2], f[3], f[5], f[6]}, ":"))
	}
	for line := range strings.Lines(parts[1]) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		out = append(out, strings.Join([]string{f[0], f[2], f[3]}, ":"))
	}
	for line := range strings.Lines(parts[2]) {
		f := strings.Fields(line)
		var gids []int
		for _, g := range f[1:] {
			var n int
			if _, err := fmt.Sscan(g, &n); err != nil {
				t.Fatal(err)
			}
			gids = append(gids, n)
		}
		slices.Sort(gids)
		out = append(out, fmt.Sprint(f[0], " in ", slices.Compact(gids)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A host with 100,000 accounts and groups stays within the cap and the
// deadline, and what is counted counts all of them.
func TestAccountsManyLines(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	var passwd, group, shadow strings.Builder
	group.WriteString("sudo:x:27:u99999,u5\n")
	for i := range 100_000 {
		fmt.Fprintf(&passwd, "u%d:x:%d:%d::/home/u%d:/bin/sh\n", i, i, i, i)
		fmt.Fprintf(&group, "g%d:x:%d:u%d,u%d\n", i, i, i, (i+1)%100_000)
		fmt.Fprintf(&shadow, "u%d:!:20000:0:99999:7:::\n", i)
	}
	for name, text := range map[string]string{
		"passwd": passwd.String(), "group": group.String(), "shadow": shadow.String(),
		"sudoers": "%sudo ALL=(ALL) ALL\n" + strings.Repeat("%none ALL=(ALL) ALL\n", 50),
	} {
		put(t, filepath.Join(root, "etc", name), text)
	}
	took := threadTime(t, func() { accountsManyLines(t, root) })
	if took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func accountsManyLines(t *testing.T, root string) {
	t.Helper()
	for _, spec := range []Spec{accountsCollector(), passwordCollector(), sudoCollector()} {
		spec.defaults()
		batch := metric.NewBatch(spec.MaxSeries)
		if err := spec.Collect(t.Context(), fixtureInput(root, Settings{}), batch); err != nil {
			t.Errorf("%s: %v", spec.Name, err)
		}
		if batch.Len() != spec.MaxSeries || batch.Dropped() < 90_000 {
			t.Errorf("%s: %d series, %d dropped", spec.Name, batch.Len(), batch.Dropped())
		}
		text := string(exposition(t, spec, fixtureInput(root, Settings{})))
		for name, want := range map[string]string{
			"accounts": `linux_security_accounts{state="locked"} 100000`,
			"sudo":     `linux_security_account_sudo{username="u99999"} 1`,
		} {
			if name == spec.Name && !strings.Contains(text, want) {
				t.Errorf("%s: no %s", name, want)
			}
		}
	}
}

func FuzzParseAccounts(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n+::::::\n#c\n a::1:1\n:x\n")
	f.Add("sudo:x:27:a, b,,c\nx:x:-0:\n\x00:x:1:\n")
	f.Fuzz(func(t *testing.T, s string) {
		db := &accountDB{}
		db.users, db.compat, _ = parsePasswd(strings.NewReader(s))
		db.groups, _, _ = parseGroup(strings.NewReader(s))
		db.sources, _ = parseNSSwitch(strings.NewReader(s))
		db.index()
		shells, _ := parseShells(strings.NewReader(s))
		db.states(shells)
		for _, u := range db.users {
			if u.name == "" || strings.ContainsAny(u.name+u.home, ":\n\x00") || u.line < 1 {
				t.Errorf("%+v from %q", u, s)
			}
			db.otherGroups(&u)
		}
		for _, g := range db.groups {
			if g.name == "" || slices.Contains(g.members, "") {
				t.Errorf("%+v from %q", g, s)
			}
		}
	})
}
