// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

// cvtsudoers(1) and parseSudoers read the same generated files: what they
// understand must be the same, and so must be what they refuse.
func TestSudoersOracle(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cvtsudoers"); err != nil {
		testkit.Missing(t, "cvtsudoers is missing: install sudo")
	}
	refused := 0
	for seed := range uint64(300) {
		g := sudoersGenerator{policyGenerator{rand.New(rand.NewPCG(seed, 11))}}
		text := g.file()
		file := filepath.Join(t.TempDir(), "sudoers")
		must(t, os.WriteFile(file, []byte(text), 0o440))
		var stderr bytes.Buffer
		cmd := exec.Command("cvtsudoers", "-f", "json", file)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		policy := newSudoers()
		got := parseSudoers("sudoers", text, policy, func(string, bool) error { return nil })
		if bad := err != nil || len(out) == 0; bad || got != nil {
			refused++
			if bad != (got != nil) {
				t.Errorf("seed %d: %v, cvtsudoers %v %s for\n%s", seed, got, err, &stderr, text)
			}
			continue
		}
		have, want := describePolicy(policy), describeJSON(t, out)
		if !slices.Equal(have, want) {
			t.Errorf("seed %d:\n%s\ncvtsudoers:\n%s\nfor\n%s", seed, strings.Join(have, "\n"), strings.Join(want, "\n"), text)
		}
	}
	if refused > 200 {
		t.Errorf("%d files were refused: too few are left to compare", refused)
	}
}

// sudoersGenerator writes single entries in every form, some of them wrong.
type sudoersGenerator struct{ policyGenerator }

func (g sudoersGenerator) file() string {
	var b strings.Builder
	for i := range 1 + g.IntN(3) {
		b.WriteString(g.pick("", "", " ", "\t") + g.entry(i) + g.pick("\n", "\n", " # comment \\\n", "\n# comment \\\n\n", " \\\n\n"))
	}
	b.WriteString("root ALL = ALL" + g.pick("", "\n"))
	return b.String()
}

func (g sudoersGenerator) entry(i int) string {
	sep := g.pick(" ", "\t", " \\\n ", "  ")
	eq := g.pick("=", " = ", " =", "= \\\n\t")
	switch g.IntN(9) {
	case 0:
		return fmt.Sprint("User_Alias", sep, "U", i, eq, g.list(3, g.anyUser), g.pick("", fmt.Sprint(" : UU", i, eq, g.anyUser())))
	case 1:
		return fmt.Sprint("Host_Alias", sep, "H", i, eq, g.list(3, g.anyHost), g.pick("", fmt.Sprint(" : HH", i, eq, g.anyHost())))
	case 2:
		return fmt.Sprint("Runas_Alias", sep, "R", i, eq, g.list(3, g.anyUser))
	case 3:
		return fmt.Sprint(g.pick("Cmnd_Alias", "Cmd_Alias"), sep, "C", i, eq, g.list(3, g.anyCommand), g.pick("", fmt.Sprint(" : CC", i, eq, g.anyCommand())))
	case 4:
		return g.defaults(sep)
	}
	grant := func() string {
		return g.list(2, g.anyHost) + eq + g.list(3, func() string {
			return g.anyRunas() + g.options() + g.pick("", "", "NOPASSWD: ", "NOPASSWD : NOEXEC:", "PASSWD:", "EXEC:SETENV:", "LOG_INPUT: NOMAIL:", "NOSETENV:") + g.anyCommand()
		})
	}
	return g.list(3, g.anyUser) + sep + grant() + g.pick("", "", " : "+grant())
}

func (g sudoersGenerator) not2() string { return g.pick("", "", "", "!", "!!", "! ", "!!!") }

func (g sudoersGenerator) anyUser() string {
	return g.not2() + g.pick("bob", "ALL", "ADMINS", "A_1", "a.b-c_d", "a@b.c", "#12", "%grp", "%#12", "%:win", "%:#5", "+net", `"q d"`, `"%q d"`,
		`"+n t"`, `"#x y"`, `a\ b`, `%a\ b`, `dom\\user`, "bob$", "Bob", "x*", `"a\"b"`, "9lives", g.pick("", "%", "#", "a b", "b#ob", "bob(", `"open`, "#-1x"))
}

func (g sudoersGenerator) anyHost() string {
	return g.not2() + g.pick("ALL", "web1", "WEB", "web*", "w[a-c]?.example.org", "10.0.0.1", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "fe80::1", "fe80::/64", "::1", "+net", `"a b"`, "1a", "beef", "[!a]b")
}

func (g sudoersGenerator) anyCommand() string {
	return g.not2() + g.pick("ALL", "FILES", "/bin/ls", "/bin/ls -l", `/bin/ls ""`, "/bin/", "/bin/l*", `/bin/a\,b\:c\=d\ e`, `/bin/x a\,b \: \\ c*`, "/bin/x  a   b", "sudoedit",
		"sudoedit /etc/a /etc/b", "/bin/[a-z]s [!x]", `/bin/x "a b"`, `^/bin/[a-z]+$`, `^/bin/x$ ^a, b$`, "/bin/x ^-a$ b", "list", "/bin/x \\\n -a", "sha224:"+strings.Repeat("0a", 28)+" /bin/ls",
		"sha256 : "+strings.Repeat("0b", 32)+", sha224:"+strings.Repeat("0c", 28)+" /bin/ps -e", "/bin/x a#b", `/bin/x a\#b`, `/bin/#`, "/bin/x !a", "/bin/x --a=b=c", "/bin/x =a", "/bin/x=1", "/bin/x a=", g.pick("bin/ls", "/", "/bin/x =", "ls", "sha1:00 /bin/ls", "/bin/ -l"))
}

func (g sudoersGenerator) anyRunas() string {
	return g.pick("", "", "", "(ALL)", "(ALL:ALL)", "(op)", "( op , !root )", "(op:adm)", "(:adm)", "(:)", "()", "(#0:#5)", "(%grp, +net)", `("a b")`, "(RUN : GRP, !adm)", g.pick("(op", "(:%x)", "(a b)", "op)")) + g.pick("", " ")
}

func (g sudoersGenerator) options() string {
	return g.pick("", "", "", "", "CWD=/tmp ", "CHROOT=/x CWD=* ", "TIMEOUT=1d ", "NOTBEFORE=20200101000000Z ", "NOTAFTER=20990101000000Z ", "CWD = /a ")
}

func (g sudoersGenerator) defaults(sep string) string {
	scope := g.pick(sep, sep, "@"+g.anyHost()+sep, ":"+g.list(2, g.anyUser)+sep, ">"+g.anyUser()+sep, "!"+g.pick("/bin/ls", "FILES", "/bin/ls, /bin/ps", "ALL", "/bin/ls -l")+sep)
	// Without a blank before it sudo takes a string for something else.
	if strings.Contains(scope, `"`) {
		scope = ":bob "
	}
	return "Defaults" + scope + g.list(3, func() string {
		return g.pick("use_pty", "!use_pty", "! use_pty", "!!use_pty", "!authenticate", "logfile=/var/log/sudo.log", `logfile = "/a b"`, "!logfile", `badpass_message="a, b"`,
			"passwd_tries=5", "umask=0027", "runas_default=op", "exempt_group=adm", g.pick("logfile=", "=x", "use_pty use_pty", "!logfile=/x", `logfile="x`))
	})
}

// describePolicy writes a policy in the words of describeJSON.
func describePolicy(s *sudoers) []string {
	var out []string
	for _, r := range s.rules {
		for _, g := range r.grants {
			for _, c := range g.commands {
				line := "rule " + describeMembers(r.users) + "@" + describeMembers(g.hosts)
				if c.runas != nil {
					users, groups := describeMembers(c.runas.users), strings.NewReplacer("word:", "group:", " id:", " group:#", "!id:", "!group:#").Replace(describeMembers(c.runas.groups))
					if len(c.runas.users) == 0 && len(c.runas.groups) == 0 {
						users = "[ word:]"
					}
					line += " as " + users + groups
				} else {
					line += " as [][]"
				}
				out = append(out, line+fmt.Sprint(" nopasswd=", c.nopasswd, " noexec=", c.noexec, " do ", describeMembers([]sudoMember{c.member})))
			}
		}
	}
	for key, members := range s.aliases {
		out = append(out, fmt.Sprint("alias ", key.kind, key.name, describeMembers(members)))
	}
	for _, d := range s.defaults {
		value := d.value
		if d.op == 0 {
			value = fmt.Sprint(!d.off)
		}
		out = append(out, fmt.Sprint("defaults ", describeMembers(d.members), d.name, "=", value))
	}
	slices.Sort(out)
	return out
}

func describeMembers(list []sudoMember) string {
	var b strings.Builder
	for _, m := range list {
		b.WriteByte(' ')
		if m.negated {
			b.WriteByte('!')
		}
		name := m.name
		if m.hasArgs && m.args == "" {
			name += ` ""`
		} else if m.hasArgs {
			name += " " + m.args
		}
		kind := [...]string{"word", "word", "alias", "id", "group", "gid", "netgroup", "other", "network", "command"}[m.kind]
		switch {
		case m.kind == sudoOtherGroup && strings.HasPrefix(name, "#"):
			kind, name = "othergid", name[1:]
		case m.digest != "":
			name = m.digest + " " + name
		}
		b.WriteString(kind + ":" + name)
	}
	return "[" + b.String() + "]"
}

type jsonMember map[string]any

type jsonSudoers struct {
	Defaults []struct {
		Binding []jsonMember
		Options []map[string]any
	}
	User_Aliases, Runas_Aliases, Host_Aliases, Command_Aliases map[string][]jsonMember

	User_Specs []struct {
		User_List, Host_List []jsonMember
		Cmnd_Specs           []struct {
			Runasusers, Runasgroups []jsonMember
			Options                 []map[string]any
			Commands                []jsonMember
		}
	}
}

// describeJSON writes what cvtsudoers says, in the words of describePolicy.
func describeJSON(t *testing.T, b []byte) []string {
	t.Helper()
	var s jsonSudoers
	// cvtsudoers 1.9.13 forgets the braces around these.
	b = regexp.MustCompile(`(?m)^(\s+)("run(?:cwd|chroot)": "[^"]*")(,?)$`).ReplaceAll(b, []byte("$1{ $2 }$3"))
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	var out []string
	for _, u := range s.User_Specs {
		for _, c := range u.Cmnd_Specs {
			tags := map[string]sudoTag{}
			for _, o := range c.Options {
				for name, on := range o {
					if on == false {
						tags[name] = tagOff
					} else {
						tags[name] = tagOn
					}
				}
			}
			nopasswd := [...]sudoTag{tagUnset, tagOff, tagOn}[tags["authenticate"]]
			for _, m := range c.Commands {
				out = append(out, "rule "+jsonMembers(u.User_List)+"@"+jsonMembers(u.Host_List)+" as "+jsonMembers(c.Runasusers)+jsonMembers(c.Runasgroups)+
					fmt.Sprint(" nopasswd=", nopasswd, " noexec=", tags["noexec"], " do ", jsonMembers([]jsonMember{m})))
			}
		}
	}
	for kind, aliases := range []map[string][]jsonMember{s.User_Aliases, s.Runas_Aliases, s.Host_Aliases, s.Command_Aliases} {
		for name, members := range aliases {
			out = append(out, fmt.Sprint("alias ", kind, name, jsonMembers(members)))
		}
	}
	for _, d := range s.Defaults {
		for _, o := range d.Options {
			for name, value := range o {
				out = append(out, fmt.Sprint("defaults ", jsonMembers(d.Binding), name, "=", value))
			}
		}
	}
	slices.Sort(out)
	return out
}

func jsonMembers(list []jsonMember) string {
	kinds := map[string]string{
		"username": "word", "hostname": "word", "userid": "id", "usergroup": "group", "usergid": "gid", "netgroup": "netgroup",
		"nonunixgroup": "other", "nonunixgid": "othergid", "networkaddr": "network", "command": "command",
		"useralias": "alias", "hostalias": "alias", "cmndalias": "alias", "runasalias": "alias",
	}
	var b strings.Builder
	for _, m := range list {
		b.WriteByte(' ')
		if m["negated"] == true {
			b.WriteByte('!')
		}
		var digests []string
		text := ""
		for key, value := range m {
			if strings.HasPrefix(key, "sha") {
				digests = append(digests, key+":"+fmt.Sprint(value))
			} else if kind, ok := kinds[key]; ok {
				if value == "ALL" && kind == "command" {
					kind = "word"
				}
				text = kind + ":"
				text += fmt.Sprint(value)
			}
		}
		if slices.Sort(digests); len(digests) > 0 {
			kind, name, _ := strings.Cut(text, ":")
			text = kind + ":" + strings.Join(digests, ",") + " " + name
		}
		b.WriteString(text)
	}
	return "[" + b.String() + "]"
}
