// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"security-exporter/internal/testkit"
)

const (
	oraclePasswd = `root:x:0:0::/root:/bin/sh
alice:x:1000:1000::/:/bin/sh
bob:x:1001:1001::/:/bin/sh
carol:x:1002:50::/:/bin/sh
op:x:1003:1003::/:/bin/sh
www:x:1004:1004::/:/bin/sh
other:x:1005:1005::/:/bin/sh
`
	oracleGroup = `root:x:0:
alice:x:1000:
bob:x:1001:
op:x:1003:
www:x:1004:
other:x:1005:
staff:x:50:alice
wheel:x:51:alice,bob
adm:x:4:
`
)

// sudo(8) itself says whom a generated policy lets run at least one of the
// commands that the policy may be about, and by running them as the account
// whether it asks for a password. All in a mount and UTS namespace where the
// files lie over those of /etc.
func TestSudoOracle(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	for _, tool := range []string{"sudo", "setpriv", "hostname"} {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, "%s is missing: install sudo, util-linux and hostname", tool)
		}
	}
	for seed := range uint64(32) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			g := policyGenerator{rand.New(rand.NewPCG(seed, 7))}
			writePolicy(t, dir, g)
			want := askSudo(t, dir)
			for _, line := range judgeLines(t, dir) {
				if !slices.Contains(want, line) {
					t.Errorf("got %q, sudo says %q for\n%s", line, want, readTree(t, dir))
				}
			}
		})
	}
}

func judgeLines(t *testing.T, dir string) []string {
	t.Helper()
	in := fixtureInput(dir, Settings{})
	db, err := readAccounts(t.Context(), in.Rootfs)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := readSudo(t.Context(), in, db)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, user := range []string{"alice", "bob", "carol"} {
		v := judge.user(user)
		lines = append(lines, fmt.Sprintf("%s %s %s", user, v.any, v.nopasswd))
	}
	return lines
}

func readTree(t *testing.T, dir string) string {
	t.Helper()
	var out bytes.Buffer
	for _, pattern := range []string{"etc/sudoers", "etc/sudoers.d/*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			must(t, err)
			fmt.Fprintf(&out, "-- %s\n%s", f, b)
		}
	}
	return out.String()
}

func writePolicy(t *testing.T, dir string, g policyGenerator) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "etc/sudoers.d"), 0o755))
	files := map[string]string{
		"passwd": oraclePasswd, "group": oracleGroup, "nsswitch.conf": "", "hostname": "web1\n",
		"shadow": "root:*:1::::::\nalice:*:1::::::\nbob:*:1::::::\ncarol:*:1::::::\n",
		"hosts":  "127.0.0.1 web1\n",
		"pam":    "auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
	}
	files["sudoers"], files["sudoers.d/10_a"], files["sudoers.d/20_b"] = g.policy()
	files["sudoers.d/ignored.conf"] = "ALL ALL=(ALL) NOPASSWD: ALL\n"
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "sudoers") {
			mode = 0o440
		}
		must(t, os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), mode))
	}
}

// askSudo returns "user any nopasswd" for each of three users.
func askSudo(t *testing.T, dir string) []string {
	t.Helper()
	const script = `set -e
cd /
hostname web1
mount -t tmpfs none /run
mount --bind "$0/etc/sudoers.d" /etc/sudoers.d
for f in passwd group nsswitch.conf shadow hosts sudoers; do mount --bind "$0/etc/$f" "/etc/$f"; done
mount --bind "$0/etc/pam" /etc/pam.d/sudo
set +e
targets='-uroot
-uop
-uwww
-uother
-gadm
-uop -gadm'
commands='/bin/ls -l
/bin/ls -x
/bin/ls
/usr/bin/id
/bin/cat /etc/passwd
/bin/cat /etc/group
/bin/true
/usr/sbin/ldconfig --version'
IFS='
'
each() { # each COMMAND...: whether it succeeds for one target and command
	for target in $targets; do
		for command in $commands; do
			if (IFS=' '; "$@" $target $command) >/dev/null 2>&1; then echo true; return; fi
		done
	done
	echo false
}
for user in alice bob carol; do
	may=$(each sudo -l -U $user)
	bare=false
	if [ $may = true ]; then bare=$(each setpriv --reuid $user --regid $(id -g $user) --init-groups sudo -n); fi
	echo "$user $may $bare"
done`
	cmd := exec.Command("sh", "-c", script, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	return lines
}

// policyGenerator writes policies about the users, hosts and commands that
// askSudo tries. It keeps to what those can tell apart.
type policyGenerator struct{ *rand.Rand }

func (g policyGenerator) pick(s ...string) string { return s[g.IntN(len(s))] }

func (g policyGenerator) list(n int, member func() string) string {
	out := make([]string, 1+g.IntN(n))
	for i := range out {
		out[i] = member()
	}
	return strings.Join(out, g.pick(",", ", ", " ,\\\n\t"))
}

func (g policyGenerator) not() string { return g.pick("", "", "", "!", "!!", "! ") }

func (g policyGenerator) user() string {
	return g.not() + g.pick("alice", "bob", "carol", "%staff", "%wheel", "#1001", "%#50", "ALICE", "ADMINS", "OTHERS", "ALL", `"bob"`, `"%staff"`, "nobody-here", "%none")
}

func (g policyGenerator) host() string {
	return g.not() + g.pick("ALL", "web1", "web*", "WEB", "db1", "w?b[0-9]", "web1.example.org", "DBS")
}

func (g policyGenerator) command() string {
	return g.not() + g.pick("ALL", "/bin/ls", "/usr/bin/ls", "/bin/ls -l", `/bin/ls ""`, "/bin/", "/usr/bin/id", "/bin/cat /etc/passwd",
		"/bin/[l]s", "FILES", "TOOLS", "NEST", "/usr/sbin/ldconfig", "UNDEFINED")
}

func (g policyGenerator) runas() string {
	return g.pick("", "", "", "", "(ALL)", "(ALL:ALL)", "(op)", "(#1003)", "(root, op)", "(ALL, !root)", "( ALL , ! op )", "(:adm)", "(op:adm)", "(RUN)", "(www)") + g.pick("", " ")
}

func (g policyGenerator) rule() string {
	grant := func() string {
		return g.list(2, g.host) + " = " + g.list(4, func() string {
			return g.runas() + g.pick("", "", "NOPASSWD: ", "NOPASSWD:NOEXEC: ", "PASSWD :", "SETENV: ") + g.command()
		})
	}
	rule := g.list(3, g.user) + " " + grant()
	if g.IntN(4) == 0 {
		rule += " : " + grant()
	}
	return rule + g.pick("", "", " # NOPASSWD: ALL") + "\n"
}

func (g policyGenerator) rules() string {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString(g.rule())
	}
	return b.String()
}

func (g policyGenerator) policy() (main, a, b string) {
	aliases := []string{
		"User_Alias ADMINS = " + g.list(3, func() string { return g.not() + g.pick("alice", "bob", "%wheel", "OTHERS", "ADMINS") }) +
			" : OTHERS = " + g.list(2, func() string { return g.not() + g.pick("carol", "%staff", "ALL") }) + "\n",
		"Host_Alias WEB = web1, web2 : DBS = db*, !web1\n",
		"Runas_Alias RUN = op, !www\n",
		"Cmnd_Alias FILES = /bin/ls, /bin/cat /etc/passwd\nCmnd_Alias TOOLS = " + g.pick("ALL, !FILES", "/usr/bin/id, !/bin/ls -l", "/bin/, !/bin/ls") + "\n",
		"Cmnd_Alias NEST = TOOLS, " + g.not() + "FILES\n",
		"Defaults env_reset\n",
		g.pick("", "", "Defaults:alice !authenticate\n", "Defaults:ADMINS !authenticate\n", "Defaults !authenticate\nDefaults:bob authenticate\n", "Defaults exempt_group=staff\n", "Defaults@web1 !authenticate\n", "Defaults@DBS !authenticate\n"),
	}
	main = strings.Join(aliases, "") + g.rules() + g.pick("@includedir /etc/sudoers.d\n", "#includedir sudoers.d\n", "@include sudoers.d/20_b\n@include \"sudoers.d/10_a\"\n") + g.pick("", g.rule())
	return main, g.rules(), g.rules()
}
