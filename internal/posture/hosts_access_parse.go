// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"strings"
)

// hostsRule is one rule of hosts_access(5).
type hostsRule struct {
	line int
	// services and hosts are the patterns of the two lists; the part behind an
	// EXCEPT belongs to each of them and is added to it.
	services, hosts []string
	options         []hostsOption
	// action is allow, deny, twist or aclexec.
	action string
}

// hostsOption is an option of hosts_options(5), the keyword in lower case.
type hostsOption struct{ keyword, value string }

// maxHostsLine is how long a rule may be, with its line feed and all lines
// joined by a backslash: what is longer is cut there (BUFLEN of libwrap).
const maxHostsLine = 2047

const hostsBlank = " \t\r\n"

// parseHosts reads a file as libwrap does. allow is whether it is hosts.allow.
// ignored counts the lines that libwrap skips with a warning: without a colon,
// too long, or without a line feed at the end of the file.
func parseHosts(b []byte, allow bool) (rules []hostsRule, ignored int) {
	b = bytes.ReplaceAll(b, []byte{0}, []byte{' '})
	for line := 0; len(b) > 0; {
		text, rest, lines, whole := hostsLine(b)
		line += lines
		b = rest
		switch {
		case !whole:
			ignored++
			continue
		case text[0] == '#' || strings.Trim(text, hostsBlank) == "":
			continue
		}
		services, more, ok := cutOutsideBrackets(text)
		if !ok {
			ignored++
			continue
		}
		hosts, options, _ := cutOutsideBrackets(more)
		r := hostsRule{line: line, services: hostsList(services), hosts: hostsList(hosts), options: hostsOptions(options)}
		r.action = hostsAction(r.options, allow)
		rules = append(rules, r)
	}
	return rules, ignored
}

// hostsLine takes one rule off, with its line feed. It is not whole when it is
// cut at maxHostsLine or has no line feed.
func hostsLine(b []byte) (text string, rest []byte, lines int, whole bool) {
	var joined []byte
	for len(b) > 0 {
		n := min(len(b), maxHostsLine-len(joined))
		if n == 0 {
			return string(joined), b, lines, false
		}
		if end := bytes.IndexByte(b[:n], '\n'); end >= 0 {
			n = end + 1
		}
		part := b[:n]
		b = b[n:]
		if part[n-1] == '\n' {
			lines++
			if n < 2 || part[n-2] != '\\' {
				return string(append(joined, part...)), b, lines, true
			}
			part = part[:n-2]
		}
		joined = append(joined, part...)
	}
	return string(joined), b, lines, false
}

// cutOutsideBrackets splits at the first colon that is not inside of the
// brackets of an IPv6 address.
func cutOutsideBrackets(s string) (before, after string, ok bool) {
	depth := 0
	for i, c := range []byte(s) {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == ':' && depth == 0:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// hostsList returns the patterns of a list, each with what is excepted.
func hostsList(s string) []string {
	words := strings.FieldsFunc(s, func(c rune) bool { return c < 0x80 && strings.ContainsRune(", "+hostsBlank, c) })
	for i, w := range words {
		if !strings.EqualFold(w, "EXCEPT") {
			continue
		}
		except := " EXCEPT " + strings.Join(words[i+1:], " ")
		words = words[:i:i]
		for j := range words {
			words[j] += except
		}
		break
	}
	return words
}

// hostsOptions splits at colons without a backslash.
func hostsOptions(s string) []hostsOption {
	var out []hostsOption
	for s = strings.TrimRight(s, hostsBlank); s != ""; {
		var field strings.Builder
		i := 0
		for ; i < len(s) && s[i] != ':'; i++ {
			if s[i] == '\\' && i+1 < len(s) && s[i+1] == ':' {
				i++
			}
			field.WriteByte(s[i])
		}
		s = s[min(i+1, len(s)):]
		text := strings.Trim(field.String(), hostsBlank)
		end := strings.IndexAny(text, hostsBlank+"=")
		if end < 0 {
			end = len(text)
		}
		out = append(out, hostsOption{strings.ToLower(text[:end]), strings.Trim(text[end:], hostsBlank+"=")})
	}
	return out
}

// hostsKeywords are the options: whether they need a value (1), may have one
// (0) or must not (-1), and whether they must be the last.
var hostsKeywords = map[string]struct {
	value int
	last  bool
}{
	"user": {1, false}, "group": {1, false}, "umask": {1, false}, "linger": {1, false}, "keepalive": {-1, false},
	"spawn": {1, false}, "twist": {1, true}, "rfc931": {0, false}, "setenv": {1, false}, "nice": {0, false},
	"severity": {1, false}, "allow": {-1, true}, "deny": {-1, true}, "banners": {1, false}, "aclexec": {1, false},
}

// hostsAction is what a match means. An option with an error denies.
func hostsAction(options []hostsOption, allow bool) string {
	action := "deny"
	if allow {
		action = "allow"
	}
	for i, o := range options {
		k, ok := hostsKeywords[o.keyword]
		if !ok || k.value > 0 && o.value == "" || k.value < 0 && o.value != "" || k.last && i < len(options)-1 {
			return "deny"
		}
		switch o.keyword {
		case "allow", "deny", "twist":
			action = o.keyword
		case "aclexec":
			action = "aclexec"
		}
	}
	return action
}
