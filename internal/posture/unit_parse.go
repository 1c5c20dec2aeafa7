// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"io"
	"strings"
)

// unitSetting is one assignment of a unit file.
type unitSetting struct{ section, key, value string }

// parseUnit reads the assignments of a unit file as systemd.syntax(7) has it:
// comments begin with # or ;, a backslash at the end joins lines with a blank,
// and comments in between do not break the joining.
func parseUnit(r io.Reader) ([]unitSetting, error) {
	var out []unitSetting
	section, joined, joining := "", "", false
	lines := configLines(r)
	for first := true; lines.Scan(); first = false {
		line := lines.Text()
		if first {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimSpace(line)
		if line != "" && (line[0] == '#' || line[0] == ';') || line == "" && !joining {
			continue
		}
		line = joined + line
		if rest, more := strings.CutSuffix(line, `\`); more {
			joined, joining = rest+" ", true
			continue
		}
		joined, joining = "", false
		out, section = unitLine(out, section, line)
	}
	if joining {
		out, _ = unitLine(out, section, joined)
	}
	return out, lines.Err()
}

func unitLine(out []unitSetting, section, line string) ([]unitSetting, string) {
	if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
		return out, line[1 : len(line)-1]
	}
	key, value, ok := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" || section == "" {
		return out, section
	}
	return append(out, unitSetting{section, key, strings.TrimSpace(value)}), section
}

// unitList returns the words of a list setting: an empty assignment drops what
// was assigned before.
func unitList(settings []unitSetting, section, key string) []string {
	var out []string
	for _, v := range unitValues(settings, section, key) {
		out = append(out, strings.Fields(v)...)
	}
	return out
}

// unitValues returns what a setting that may stand several times is assigned,
// after the last empty assignment.
func unitValues(settings []unitSetting, section, key string) []string {
	var out []string
	for _, s := range settings {
		switch {
		case s.section != section || s.key != key:
		case s.value == "":
			out = nil
		default:
			out = append(out, s.value)
		}
	}
	return out
}

// unitValue returns the last value of a setting.
func unitValue(settings []unitSetting, section, key string) string {
	v := unitValues(settings, section, key)
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// unitTypes are the suffixes of unit names (systemd.unit(5)).
var unitTypes = map[string]bool{
	"service": true, "socket": true, "device": true, "mount": true, "automount": true, "swap": true,
	"target": true, "path": true, "timer": true, "slice": true, "scope": true,
}

// maxUnitName is UNIT_NAME_MAX of systemd.
const maxUnitName = 255

// unitName is a name taken apart: prefix, instance (with at, also if empty) and
// type.
type unitName struct {
	prefix, instance, kind string
	at                     bool
}

func (n unitName) template() bool  { return n.at && n.instance == "" }
func (n unitName) instanced() bool { return n.at && n.instance != "" }

// withInstance is the name of another instance of the same template, or of the
// template itself.
func (n unitName) withInstance(instance string) string {
	return n.prefix + "@" + instance + "." + n.kind
}

// parseUnitName takes a name apart; ok is false if it is not one.
func parseUnitName(s string) (n unitName, ok bool) {
	dot := strings.LastIndexByte(s, '.')
	if dot <= 0 || len(s) > maxUnitName || !unitTypes[s[dot+1:]] {
		return n, false
	}
	for _, c := range []byte(s[:dot]) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && strings.IndexByte(`:-_.\@`, c) < 0 {
			return n, false
		}
	}
	n.kind = s[dot+1:]
	n.prefix, n.instance, n.at = strings.Cut(s[:dot], "@")
	return n, n.prefix != ""
}
