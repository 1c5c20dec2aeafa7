// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"path"
	"strings"

	"security-exporter/internal/hostfs"
)

// sshdStart is how the daemon is started: its configuration file if that is
// not the usual one, and what the command line sets.
type sshdStart struct {
	config string
	lines  []sshdLine
}

// sshdOptionFiles are shell files with the flags of the daemon where no unit
// says more: Debian, OpenRC, Red Hat and SUSE.
var sshdOptionFiles = [...]struct{ file, variable string }{
	{"/etc/default/ssh", "SSHD_OPTS"}, {"/etc/conf.d/sshd", "SSHD_OPTS"},
	{"/etc/sysconfig/sshd", "OPTIONS"}, {"/etc/sysconfig/ssh", "SSHD_OPTS"},
}

// readSSHDStart finds the flags of the daemon in its unit with drop-ins and
// environment files, or in one of the shell files.
func readSSHDStart(ctx context.Context, root *hostfs.Tree) (sshdStart, error) {
	tree, err := readUnitTree(ctx, root)
	problems := []error{err}
	for _, name := range [...]string{"sshd.service", "ssh.service"} {
		u, err := tree.load(ctx, name)
		if errors.Is(err, hostfs.ErrNotExist) || err == nil && u.masked {
			continue
		}
		problems = append(problems, err)
		if err != nil {
			continue
		}
		env, err := unitEnvironment(ctx, root, u)
		problems = append(problems, err)
		words := execWords(unitValue(u.settings, "Service", "ExecStart"), env)
		if len(words) > 0 && path.Base(words[0]) == "sshd" {
			return parseSSHDFlags(words[1:]), errors.Join(problems...)
		}
	}
	for _, f := range sshdOptionFiles {
		env, err := readShellFile(ctx, root, f.file)
		problems = append(problems, unlessMissing(err))
		if flags := strings.Fields(env[f.variable]); len(flags) > 0 {
			return parseSSHDFlags(flags), errors.Join(problems...)
		}
	}
	return sshdStart{}, errors.Join(problems...)
}

// parseSSHDFlags reads the command line as getopt(3) does, with the options of
// sshd(8).
func parseSSHDFlags(args []string) sshdStart {
	const withValue = "CEbcfghkopu"
	var s sshdStart
	set := func(key, value string) {
		s.lines = append(s.lines, sshdLine{key: key, args: []string{value}, text: value, flag: true})
	}
	for i := 0; i < len(args) && len(args[i]) > 1 && args[i][0] == '-' && args[i] != "--"; i++ {
		letters := args[i][1:]
		for letters != "" {
			c := letters[0]
			letters = letters[1:]
			value := ""
			if strings.IndexByte(withValue, c) >= 0 {
				if letters == "" && i+1 < len(args) {
					i++
					letters = args[i]
				}
				value, letters = letters, ""
			}
			switch c {
			case 'f':
				s.config = value
			case 'o':
				if l, err := parseSSHDLine(value); err == nil && l.key != "" {
					l.flag = true
					s.lines = append(s.lines, l)
				}
			case 'p':
				set("Port", value)
				s.lines[len(s.lines)-1].only = true
			case 'g':
				set("LoginGraceTime", value)
			case 'h':
				set("HostKey", value)
			case '4':
				set("AddressFamily", "inet")
			case '6':
				set("AddressFamily", "inet6")
			}
		}
	}
	return s
}

// unitEnvironment is what Environment= and EnvironmentFile= set
// (systemd.exec(5)); the files win.
func unitEnvironment(ctx context.Context, root *hostfs.Tree, u *unit) (map[string]string, error) {
	env := make(map[string]string)
	var problems []error
	for _, v := range unitValues(u.settings, "Service", "Environment") {
		for _, word := range execWords(v, nil) {
			if name, value, ok := strings.Cut(word, "="); ok {
				env[name] = value
			}
		}
	}
	for _, file := range unitValues(u.settings, "Service", "EnvironmentFile") {
		more, err := readShellFile(ctx, root, strings.TrimPrefix(file, "-"))
		problems = append(problems, unlessMissing(err))
		for k, v := range more {
			env[k] = v
		}
	}
	return env, errors.Join(problems...)
}

// readShellFile returns the assignments of a file in the form that
// os-release(5), EnvironmentFile= and /etc/default share.
func readShellFile(ctx context.Context, root *hostfs.Tree, file string) (map[string]string, error) {
	b, err := root.ReadLimit(ctx, file, hostfs.ValueLimit)
	if err != nil {
		return nil, err
	}
	return parseOSRelease(bytes.NewReader(b))
}

// execWords splits a command line of systemd.service(5): quotes, backslashes,
// the prefixes of the program, $NAME as words of their own and ${NAME} inside
// of a word. Specifiers stay as they are.
func execWords(command string, env map[string]string) []string {
	words, ok := quotedWords(strings.TrimLeft(command, "@-:+!|"))
	if !ok {
		return nil
	}
	var out []string
	for _, w := range words {
		if name, ok := strings.CutPrefix(w, "$"); ok && isShellName(name) {
			out = append(out, strings.Fields(env[name])...)
			continue
		}
		for name, value := range env {
			w = strings.ReplaceAll(w, "${"+name+"}", value)
		}
		out = append(out, w)
	}
	return out
}

// quotedWords splits at blanks outside of quotes.
func quotedWords(s string) (words []string, ok bool) {
	for s = strings.TrimLeft(s, sshdBlank); s != ""; s = strings.TrimLeft(s, sshdBlank) {
		word, n, ok := sshdWord(s)
		if !ok {
			return nil, false
		}
		words = append(words, word)
		s = s[n:]
	}
	return words, true
}
