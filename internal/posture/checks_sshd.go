// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"slices"
	"strconv"
	"strings"
)

// sshdValues returns the values of an option that hold for some connection:
// the effective one, or the default, and those inside of Match blocks.
func (h *checkHost) sshdValues(name string) ([][]string, error) {
	config, err := h.sshd()
	if config == nil {
		return nil, err
	}
	o := sshdOptions[slices.IndexFunc(sshdOptions, func(o sshdOption) bool { return o.name == name })]
	values, _, _ := config.option(o)
	out := [][]string{values}
	for _, l := range config.lines {
		if !l.always() && strings.EqualFold(l.key, name) {
			out = append(out, o.render([]sshdLine{l}))
		}
	}
	return out, err
}

// sshdCount counts the values of an option that are bad.
func (h *checkHost) sshdCount(name string, bad func(value string) bool) (findings int, err error) {
	values, err := h.sshdValues(name)
	for _, list := range values {
		if slices.ContainsFunc(list, bad) {
			findings++
		}
	}
	return findings, err
}

// sshdWordCheck wants an option to have one of the values.
func sshdWordCheck(name string, good ...string) func(*checkHost) (int, error) {
	return func(h *checkHost) (int, error) {
		return h.sshdCount(name, func(v string) bool { return !slices.Contains(good, v) })
	}
}

// sshdRangeCheck wants an option that is a number to lie between two.
func sshdRangeCheck(name string, least, most int64) func(*checkHost) (int, error) {
	return func(h *checkHost) (int, error) {
		return h.sshdCount(name, func(v string) bool {
			n, err := strconv.ParseInt(v, 10, 64)
			return err != nil || n < least || n > most
		})
	}
}

func checkTCPForwarding(h *checkHost) (int, error) {
	config, err := h.sshd()
	if config == nil {
		return 0, err
	}
	if disabled, _ := h.sshdValues("DisableForwarding"); len(disabled) == 1 && slices.Equal(disabled[0], []string{"yes"}) {
		return 0, err
	}
	return h.sshdCount("AllowTcpForwarding", func(v string) bool { return v != "no" })
}

func checkClientAlive(h *checkHost) (int, error) {
	interval, err := sshdRangeCheck("ClientAliveInterval", 1, 900)(h)
	count, _ := sshdRangeCheck("ClientAliveCountMax", 1, 1<<31)(h)
	return interval + count, err
}

// weakAlgorithms are parts of the names of algorithms that are broken or have
// short keys or tags.
var weakAlgorithms = map[string][]string{
	"Ciphers":       {"3des", "arcfour", "blowfish", "cast128", "-cbc", "rijndael", "none"},
	"MACs":          {"md5", "-96", "ripemd", "none"},
	"KexAlgorithms": {"group1-sha1", "group14-sha1", "group-exchange-sha1", "gss-gex-sha1", "none"},
}

func checkAlgorithms(h *checkHost) (findings int, err error) {
	for _, name := range sortedKeys(weakAlgorithms) {
		var n int
		n, err = h.sshdCount(name, func(v string) bool {
			return !strings.HasPrefix(v, "-") &&
				slices.ContainsFunc(weakAlgorithms[name], func(part string) bool { return strings.Contains(v, part) })
		})
		findings += n
	}
	return findings, err
}
