// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"path"
	"strings"
)

// unknownProgram stands for a command in which no program can be seen, such as
// one that a variable or a substitution names in full.
const unknownProgram = "(shell)"

// shellProgram names the program of a shell command, without arguments. It is
// the first simple command that does more than prepare or guard: assignments
// before it, cd, test, [, umask and the like are skipped together with their
// operator, keywords such as if and ! are skipped, and programs that run
// another one (nice, env, flock, sudo, sh -c) are looked through. So all of
//
//	[ -x /usr/sbin/p ] && /usr/sbin/p -q
//	cd / && PATH=/bin nice -n 5 /usr/sbin/p
//	if test -x /usr/sbin/p; then /usr/sbin/p; fi
//
// are /usr/sbin/p. Where nothing else is left, the guard itself is named.
func shellProgram(command string) string { return shellProgramDepth(command, 0) }

func shellProgramDepth(command string, depth int) string {
	guard := ""
	for _, words := range shellCommands(command) {
		program, rest := programOf(words)
		if program == "" {
			continue
		}
		if shells[path.Base(program)] && depth < 4 {
			if script, ok := shellScript(rest); ok {
				return shellProgramDepth(script, depth+1)
			}
		}
		if !shellGuards[program] || program == "command" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			return program
		}
		if guard == "" {
			guard = program
		}
	}
	if guard == "" {
		return unknownProgram
	}
	return guard
}

// shellGuards prepare for the program or decide whether it runs.
var shellGuards = wordSet(`[ [[ test cd set export umask ulimit true false : . source sleep command type which hash
	unset trap eval read wait local pushd popd alias shopt`)

// shellKeywords are followed by a command.
var shellKeywords = wordSet(`if then elif else while until do ! { ( time exec`)

// shells take a script with -c.
var shells = wordSet(`sh bash dash ash zsh ksh busybox`)

// shellWrappers run the program that their arguments name: the options with a
// value, and how many arguments come before the program.
var shellWrappers = map[string]struct {
	withValue string
	skip      int
}{
	"nice": {"n", 0}, "ionice": {"cnp", 0}, "chrt": {"TPD", 1}, "taskset": {"", 1}, "nohup": {"", 0}, "setsid": {"", 0},
	"env": {"uCS", 0}, "timeout": {"ks", 1}, "flock": {"wE", 1}, "sudo": {"ugCDhpRrtTU", 0}, "doas": {"uC", 0},
	"chronic": {"", 0}, "runuser": {"ugG", 0}, "stdbuf": {"ioe", 0}, "systemd-cat": {"tp", 0}, "command": {"", 0},
	"unbuffer": {"", 0}, "cronic": {"", 0}, "run-one": {"", 0},
}

func wordSet(words string) map[string]bool {
	out := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

// programOf returns the program of a simple command and what follows it.
func programOf(words []string) (program string, rest []string) {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if name, _, ok := strings.Cut(w, "="); shellKeywords[w] || ok && isShellName(name) {
			continue
		}
		if strings.ContainsAny(w, "`()") {
			return unknownProgram, nil
		}
		wrapper, ok := shellWrappers[path.Base(w)]
		if !ok {
			return w, words
		}
		inner := wrapped(words, wrapper.withValue, wrapper.skip)
		if len(inner) == 0 || w == "command" && len(words) > 0 && strings.HasPrefix(words[0], "-") {
			return w, words
		}
		words = inner
	}
	return "", nil
}

// wrapped skips the options and arguments of a wrapper.
func wrapped(words []string, withValue string, skip int) []string {
	for len(words) > 0 && len(words[0]) > 1 && words[0][0] == '-' {
		w := words[0]
		words = words[1:]
		if w == "--" {
			break
		}
		if len(w) == 2 && strings.Contains(withValue, w[1:]) && len(words) > 0 {
			words = words[1:]
		}
	}
	return words[min(skip, len(words)):]
}

// shellScript is the argument of -c.
func shellScript(args []string) (string, bool) {
	for i, a := range args {
		switch {
		case !strings.HasPrefix(a, "-") && a != "sh" && a != "ash":
			return "", false
		case strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.HasSuffix(a, "c"):
			if i+1 < len(args) {
				return args[i+1], true
			}
			return "", false
		}
	}
	return "", false
}

// shellCommands splits a command into simple commands at operators, and those
// into words without quotes. Redirections are left out. It stops at a here
// document and at quotes without end.
func shellCommands(s string) [][]string {
	var out [][]string
	var words []string
	flush := func() {
		if len(words) > 0 {
			out = append(out, words)
		}
		words = nil
	}
	for s != "" {
		switch c := s[0]; {
		case c == ' ' || c == '\t':
			s = s[1:]
		case c == '#':
			s = ""
		case strings.IndexByte(";|&\n()", c) >= 0:
			flush()
			s = s[1:]
		case c == '<' || c == '>':
			s = skipRedirection(s)
		default:
			word, n := shellWord(s)
			if n == 0 {
				n = len(s)
			}
			s = s[n:]
			if s != "" && (s[0] == '<' || s[0] == '>') && strings.Trim(word, "0123456789") == "" {
				s = skipRedirection(s)
				continue
			}
			words = append(words, word)
		}
	}
	flush()
	return out
}

// skipRedirection drops the operator and its target.
func skipRedirection(s string) string {
	s = strings.TrimLeft(s, "<>&|")
	s = strings.TrimLeft(s, " \t")
	_, n := shellWord(s)
	return s[n:]
}

// shellWord is the first word of s without its quotes and the bytes it takes.
// A substitution stays in the word as it is, so that it can be told.
func shellWord(s string) (word string, n int) {
	var b strings.Builder
	var quote byte
	depth := 0
	for n = 0; n < len(s); n++ {
		c := s[n]
		switch {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '\\':
			b.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && n+1 < len(s):
			n++
			b.WriteByte(s[n])
		case c == '\'' || c == '"':
			quote = c
		case c == '$' && n+1 < len(s) && s[n+1] == '(':
			depth++
			n++
			b.WriteString("$(")
		case depth > 0 && c == '(':
			depth++
			b.WriteByte(c)
		case depth > 0 && c == ')':
			depth--
			b.WriteByte(c)
		case c == '`':
			depth ^= 1
			b.WriteByte(c)
		case depth == 0 && strings.IndexByte(" \t\n;|&<>()", c) >= 0:
			return b.String(), n
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), n
}
