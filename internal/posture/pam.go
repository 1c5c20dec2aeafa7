// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
)

// Reads the stack of a service in /etc/pam.d, or in the folder of the
// distribution where that has none (pam.d(5)).

var pamDirs = []string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"}

const (
	pamDepth    = 16
	maxPAMLines = 10_000
)

// pamLine is one line of a stack, the included ones in the place of include.
type pamLine struct {
	// kind is auth, account, password or session.
	kind, control, module string
	args                  []string
}

// arg returns the value of an argument such as minlen=12.
func (l pamLine) arg(name string) (value string, ok bool) {
	for _, a := range l.args {
		if key, v, _ := strings.Cut(a, "="); key == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// enforced is whether the module can refuse.
func (l pamLine) enforced() bool { return l.control != "optional" }

// parsePAM reads the lines of one file. @include has the kind "@include" and
// the file as its module.
func parsePAM(r io.Reader) ([]pamLine, error) {
	var out []pamLine
	lines := configLines(r)
	before := ""
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if more, ok := strings.CutSuffix(text, `\`); ok {
			before += more + " "
			continue
		}
		if l, ok := parsePAMLine(before + text); ok {
			out = append(out, l)
		}
		before = ""
	}
	return out, lines.Err()
}

func parsePAMLine(text string) (l pamLine, ok bool) {
	kind, rest := pamWord(text)
	l.kind = strings.ToLower(strings.TrimPrefix(kind, "-"))
	if l.kind == "@include" {
		l.module, _ = pamWord(rest)
		return l, l.module != ""
	}
	l.control, rest = pamWord(rest)
	l.module, rest = pamWord(rest)
	for rest != "" {
		var a string
		if a, rest = pamWord(rest); a != "" {
			l.args = append(l.args, a)
		}
	}
	return l, l.module != "" && slices.Contains([]string{"auth", "account", "password", "session"}, l.kind)
}

// pamWord cuts off the first word; brackets keep blanks together.
func pamWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, " \t")
	if strings.HasPrefix(s, "[") {
		if end := strings.IndexByte(s, ']'); end > 0 {
			return s[:end+1], s[end+1:]
		}
	}
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// readPAM returns the lines of one kind in the stack of a service.
// hostfs.ErrNotExist means that there is no such service.
func readPAM(ctx context.Context, root *hostfs.Tree, service, kind string) ([]pamLine, error) {
	r := pamReader{ctx: ctx, root: root, kind: kind}
	err := r.file(service, 0)
	return r.out, err
}

type pamReader struct {
	ctx  context.Context
	root *hostfs.Tree
	kind string
	out  []pamLine
	read int
}

func (r *pamReader) file(name string, depth int) error {
	if depth > pamDepth {
		return fmt.Errorf("/etc/pam.d/%.64s: files include each other more than %d deep", path.Base(name), pamDepth)
	}
	files := []string{path.Join("/", name)}
	if !path.IsAbs(name) {
		files = nil
		for _, dir := range pamDirs {
			files = append(files, path.Join(dir, path.Base(name)))
		}
	}
	var b []byte
	err := error(hostfs.ErrNotExist)
	for _, f := range files {
		if b, err = r.root.ReadLimit(r.ctx, f, 1<<20); !errors.Is(err, hostfs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	lines, err := parsePAM(bytes.NewReader(b))
	problems := []error{err}
	for _, l := range lines {
		if r.read++; r.read > maxPAMLines {
			return fmt.Errorf("/etc/pam.d/%.64s: more than %d lines with the included files", path.Base(name), maxPAMLines)
		}
		switch {
		case l.kind == "@include":
			problems = append(problems, unlessMissing(r.file(l.module, depth+1)))
		case l.kind != r.kind:
		case l.control == "include" || l.control == "substack":
			problems = append(problems, unlessMissing(r.file(l.module, depth+1)))
		default:
			l.module = path.Base(l.module)
			r.out = append(r.out, l)
		}
	}
	return errors.Join(problems...)
}

// pamStack returns the stack of the first of the services that exists.
func (h *checkHost) pamStack(kind string, services ...string) ([]pamLine, error) {
	err := error(hostfs.ErrNotExist)
	for _, s := range services {
		var lines []pamLine
		lines, err = readPAM(h.ctx, h.in.Rootfs, s, kind)
		if !errors.Is(err, hostfs.ErrNotExist) {
			return lines, err
		}
	}
	return nil, err
}

// pamHas finds a line with one of the modules that can refuse.
func pamHas(lines []pamLine, modules ...string) *pamLine {
	for i, l := range lines {
		if l.enforced() && slices.Contains(modules, l.module) {
			return &lines[i]
		}
	}
	return nil
}

func checkFaillock(h *checkHost) (findings int, err error) {
	any := false
	var problems []error
	for _, service := range []string{"login", "sshd"} {
		lines, err := h.pamStack("auth", service)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		any = true
		problems = append(problems, err)
		if pamHas(lines, "pam_faillock.so", "pam_tally2.so") == nil && err == nil {
			findings++
		}
	}
	if !any {
		return 0, ErrNotApplicable
	}
	return findings, errors.Join(problems...)
}

const (
	leastPasswordLength  = 12
	leastPasswordHistory = 5
)

func checkPwquality(h *checkHost) (int, error) {
	lines, err := h.pamStack("password", "passwd", "system-auth", "common-password")
	if err != nil {
		return 0, err
	}
	l := pamHas(lines, "pam_pwquality.so", "pam_cracklib.so")
	if l == nil {
		return 1, nil
	}
	conf, err := h.securityConf("pwquality")
	if err != nil {
		return 0, err
	}
	return tooLow(l, "minlen", conf, 8, leastPasswordLength), nil
}

func checkPwhistory(h *checkHost) (int, error) {
	lines, err := h.pamStack("password", "passwd", "system-auth", "common-password")
	if err != nil {
		return 0, err
	}
	conf, err := h.securityConf("pwhistory")
	if err != nil {
		return 0, err
	}
	if l := pamHas(lines, "pam_pwhistory.so"); l != nil {
		return tooLow(l, "remember", conf, 10, leastPasswordHistory), nil
	}
	if l := pamHas(lines, "pam_unix.so"); l != nil {
		return tooLow(l, "remember", nil, 0, leastPasswordHistory), nil
	}
	return 1, nil
}

func checkSuRestricted(h *checkHost) (int, error) {
	lines, err := h.pamStack("auth", "su")
	if err != nil {
		return 0, err
	}
	if l := pamHas(lines, "pam_wheel.so"); l == nil || l.control == "sufficient" || slices.Contains(l.args, "deny") {
		return 1, nil
	}
	return 0, nil
}

// tooLow is 1 if a number is below the least: that of the line, else of the
// file, else the module's own.
func tooLow(l *pamLine, key string, conf map[string]string, otherwise, least int) int {
	text, ok := l.arg(key)
	if !ok {
		text, ok = conf[key]
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case !ok:
		n = otherwise
	case err != nil:
		n = 0
	}
	if n < least {
		return 1
	}
	return 0
}

// securityConf reads NAME.conf.d and then NAME.conf of /etc/security, which
// wins as in pwquality.conf(5): "key = value" lines, the last counts; a key
// without a value is on.
func (h *checkHost) securityConf(name string) (map[string]string, error) {
	main := "/etc/security/" + name + ".conf"
	files, err := h.in.Rootfs.Glob(h.ctx, main+".d/*.conf")
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, f := range append(files, main) {
		b, err := h.in.Rootfs.ReadLimit(h.ctx, f, 1<<20)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := parseSecurityConf(bytes.NewReader(b), out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseSecurityConf(r io.Reader, into map[string]string) error {
	lines := configLines(r)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		key, value, _ := strings.Cut(text, "=")
		if key = strings.TrimSpace(key); key != "" {
			into[key] = strings.TrimSpace(value)
		}
	}
	return lines.Err()
}
