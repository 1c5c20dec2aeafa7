// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is the largest configuration file that is read.
const maxFileBytes = 1 << 20

// file is the content of the configuration file, each rule with its line.
type file struct {
	defaults bool
	rules    []fileRule

	waivers, sysctl map[string]string
	intervals       map[string]time.Duration
}

type fileRule struct {
	FileRule
	at  place
	key string // file_access.rules[i], for messages
}

// place is a position in the configuration file, for messages.
type place struct {
	name string
	line int
}

func (p place) errorf(key, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if key != "" {
		msg = key + ": " + msg
	}
	if p.line == 0 {
		return fmt.Errorf("%s: %s", printable(p.name), msg)
	}
	return fmt.Errorf("%s:%d: %s", printable(p.name), p.line, msg)
}

// loadFile applies the configuration file at path: all of it, or nothing and
// an error.
func (c *Config) loadFile(path string, known Known) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	f, err := parseFile(path, data, known)
	if err != nil {
		return err
	}
	rules, err := f.merge(path)
	if err != nil {
		return err
	}
	c.FileRules, c.Posture.Waivers, c.Posture.Sysctl, c.Posture.Intervals = rules, f.waivers, f.sysctl, f.intervals
	c.File, c.FileHash = path, hash(data)
	return nil
}

// hashBytes are enough to tell files apart, and to compare with sha256sum.
const hashBytes = 8

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:hashBytes])
}

// readFile reads a regular file of at most maxFileBytes. It does not wait: a
// named pipe without a writer is refused, not opened.
func readFile(path string) ([]byte, error) {
	fd, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = fd.Close() }()
	st, err := fd.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no regular file", printable(path))
	}
	data, err := io.ReadAll(io.LimitReader(fd, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: is larger than %d bytes", printable(path), maxFileBytes)
	}
	return data, nil
}

// yamlLine is how the YAML library begins a message that has a line.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parseFile parses one YAML document. name is used in messages only.
func parseFile(name string, data []byte, known Known) (*file, error) {
	f := &file{defaults: true}
	if err := checkText(name, data); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return f, nil
	} else if err != nil {
		return nil, syntaxError(name, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, place{name, second.Line}.errorf("", "a second YAML document; write one")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(name, err)
	}
	root := doc.Content[0]
	if isNull(root) {
		return f, nil
	}
	top, err := mapping(name, "", root, "file_access", "checks", "sysctl", "collectors")
	if err != nil {
		return nil, err
	}
	for _, section := range []struct {
		key   string
		parse func(*yaml.Node) error
	}{
		{"file_access", func(n *yaml.Node) error { return f.parseFileAccess(name, n) }},
		{"checks", func(n *yaml.Node) error { return f.parseChecks(name, n, known.Checks) }},
		{"sysctl", func(n *yaml.Node) error { return f.parseSysctl(name, n) }},
		{"collectors", func(n *yaml.Node) error { return f.parseCollectors(name, n, known.Collectors) }},
	} {
		if n := top[section.key]; n != nil && !isNull(n) {
			if err := section.parse(n); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// checkText refuses the bytes that YAML does not take, since the library
// would not say in which line they are.
func checkText(name string, data []byte) error {
	line := 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1:
			return place{name, line}.errorf("", "is not valid UTF-8")
		case r == '\n':
			line++
		case r != '\t' && r != '\r' && unicode.IsControl(r):
			return place{name, line}.errorf("", "contains the control character %U", r)
		}
		data = data[size:]
	}
	return nil
}

// syntaxError words an error of the YAML library, which leaves out the line
// if it is the first.
func syntaxError(name string, err error) error {
	msg := oneLine(err.Error())
	at := place{name: name, line: 1}
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		at.line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
	}
	return at.errorf("", "%s", strings.TrimPrefix(msg, "yaml: "))
}

func (f *file) parseFileAccess(name string, n *yaml.Node) error {
	keys, err := mapping(name, "file_access", n, "defaults", "rules")
	if err != nil {
		return err
	}
	if d := keys["defaults"]; d != nil {
		switch {
		case d.Kind == yaml.ScalarNode && d.Value == "true":
		case d.Kind == yaml.ScalarNode && d.Value == "false":
			f.defaults = false
		default:
			return place{name, d.Line}.errorf("file_access.defaults", "%swant true or false", value(d))
		}
	}
	rules := keys["rules"]
	if rules == nil || isNull(rules) {
		return nil
	}
	if rules.Kind != yaml.SequenceNode {
		return place{name, rules.Line}.errorf("file_access.rules", "%swant a list of rules", value(rules))
	}
	if len(rules.Content) > MaxFileRules {
		return place{name, rules.Line}.errorf("file_access.rules", "%d rules; at most %d", len(rules.Content), MaxFileRules)
	}
	for i, r := range rules.Content {
		rule, err := parseRule(name, fmt.Sprintf("file_access.rules[%d]", i), r)
		if err != nil {
			return err
		}
		f.rules = append(f.rules, rule)
	}
	return nil
}

func parseRule(name, key string, n *yaml.Node) (fileRule, error) {
	r := fileRule{at: place{name, n.Line}, key: key}
	keys, err := mapping(name, key, n, "path", "read", "write")
	if err != nil {
		return r, err
	}
	p := keys["path"]
	if p == nil {
		return r, r.at.errorf(key+".path", "is missing")
	}
	r.at.line = p.Line
	if p.Kind != yaml.ScalarNode || isNull(p) {
		return r, r.at.errorf(key+".path", "%swant a path", value(p))
	}
	r.Path = p.Value
	if err := checkRulePath(r.Path); err != nil {
		return r, r.at.errorf(key+".path", "%q %v", shorten(r.Path), err)
	}
	given := false
	for _, s := range []struct {
		key string
		to  *Severity
	}{{"read", &r.Read}, {"write", &r.Write}} {
		n := keys[s.key]
		if n == nil || isNull(n) || n.Kind == yaml.ScalarNode && n.Value == "" {
			continue
		}
		given = true
		sev, ok := parseSeverity(n.Value)
		if n.Kind != yaml.ScalarNode || !ok {
			return r, place{name, n.Line}.errorf(key+"."+s.key, "%swant critical, warning, info or none", value(n))
		}
		*s.to = sev
	}
	if !given {
		return r, r.at.errorf(key, "%q has neither read nor write; give at least one", shorten(r.Path))
	}
	return r, nil
}

// merge applies the file's rules to the defaults: a rule for a default's path
// takes its place, and one with none for both removes it.
func (f *file) merge(name string) ([]FileRule, error) {
	var out []FileRule
	if f.defaults {
		out = DefaultFileRules()
	}
	defaults := make(map[string]int, len(out))
	for i, r := range out {
		defaults[ruleKey(r.Path)] = i
	}
	lines := make(map[string]int, len(f.rules))
	for _, r := range f.rules {
		key := ruleKey(r.Path)
		if line, dup := lines[key]; dup {
			return nil, r.at.errorf(r.key+".path", "%q is already in line %d", shorten(r.Path), line)
		}
		lines[key] = r.at.line
		i, isDefault := defaults[key]
		switch {
		case isDefault:
			out[i] = r.FileRule
		case r.Read == SeverityNone && r.Write == SeverityNone:
			return nil, r.at.errorf(r.key, "%q switches off a path that is not in the built-in list", shorten(r.Path))
		default:
			out = append(out, r.FileRule)
		}
	}
	out = slices.DeleteFunc(out, func(r FileRule) bool {
		return r.Read == SeverityNone && r.Write == SeverityNone
	})
	if len(out) > MaxFileRules {
		return nil, place{name: name}.errorf("file_access.rules", "%d rules together with the built-in ones; at most %d", len(out), MaxFileRules)
	}
	return out, nil
}

// mapping returns the values of a YAML mapping by key. It refuses what is no
// mapping, a key that is not allowed, and one that comes twice.
func mapping(name, key string, n *yaml.Node, allowed ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, place{name, n.Line}.errorf(key, "%swant the keys %s", value(n), strings.Join(allowed, ", "))
	}
	out := make(map[string]*yaml.Node, len(allowed))
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := place{name, k.Line}
		if k.Kind != yaml.ScalarNode || !slices.Contains(allowed, k.Value) {
			return nil, at.errorf(key, "unknown key %q; want %s", shorten(k.Value), strings.Join(allowed, ", "))
		}
		if out[k.Value] != nil {
			return nil, at.errorf(key, "key %q comes twice", k.Value)
		}
		if v.Kind == yaml.AliasNode {
			return nil, place{name, v.Line}.errorf(strings.TrimPrefix(key+"."+k.Value, "."), "YAML aliases are not supported; write the value out")
		}
		out[k.Value] = v
	}
	return out, nil
}

// value begins a message about a node that is not what it should be.
func value(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return fmt.Sprintf("%q; ", shorten(n.Value))
	case yaml.MappingNode:
		return "is a mapping; "
	case yaml.SequenceNode:
		return "is a list; "
	case yaml.AliasNode:
		return "is an alias; "
	default:
		return ""
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
