// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxSysctl is the largest number of kernel parameters that the configuration
// file may name: each is one to four series.
const MaxSysctl = 200

// parseChecks reads which checks may fail, and why.
func (f *file) parseChecks(name string, n *yaml.Node, ids []string) error {
	keys, err := mapping(name, "checks", n, "waive")
	if err != nil {
		return err
	}
	f.waivers = make(map[string]string)
	return entries(name, "checks.waive", keys["waive"], "check ids with a reason each", func(k, v *yaml.Node) error {
		if !slices.Contains(ids, k.Value) {
			return place{name, k.Line}.errorf("checks.waive", "no check is called %q; docs/checks.md lists them", shorten(k.Value))
		}
		if v.Kind != yaml.ScalarNode || isNull(v) || v.Value == "" {
			return place{name, v.Line}.errorf("checks.waive."+k.Value, "%swant the reason why it may fail", value(v))
		}
		f.waivers[k.Value] = v.Value
		return nil
	})
}

// sysctlName is a dotted name or a path below /proc/sys, as in sysctl.d(5).
var sysctlName = regexp.MustCompile(`^[A-Za-z0-9_-]+([./][A-Za-z0-9_:@-]+)+$`)

// parseSysctl reads which value a kernel parameter should have.
func (f *file) parseSysctl(name string, n *yaml.Node) error {
	keys, err := mapping(name, "sysctl", n, "expect")
	if err != nil {
		return err
	}
	f.sysctl = make(map[string]string)
	return entries(name, "sysctl.expect", keys["expect"], "kernel parameters with a value each", func(k, v *yaml.Node) error {
		at := place{name, k.Line}
		if !sysctlName.MatchString(k.Value) || len(k.Value) > maxShown {
			return at.errorf("sysctl.expect", "%q is no name of a kernel parameter, such as kernel.sysrq", shorten(k.Value))
		}
		if v.Kind != yaml.ScalarNode || len(v.Value) > maxShown {
			return place{name, v.Line}.errorf("sysctl.expect."+k.Value, "%swant its value, or nothing to expect none", value(v))
		}
		if len(f.sysctl) == MaxSysctl {
			return at.errorf("sysctl.expect", "more than %d parameters", MaxSysctl)
		}
		f.sysctl[k.Value] = v.Value
		if isNull(v) {
			f.sysctl[k.Value] = ""
		}
		return nil
	})
}

// parseCollectors reads how often collectors run.
func (f *file) parseCollectors(name string, n *yaml.Node, known []string) error {
	f.intervals = make(map[string]time.Duration)
	return entries(name, "collectors", n, "collectors with their settings", func(k, v *yaml.Node) error {
		if !slices.Contains(known, k.Value) {
			return place{name, k.Line}.errorf("collectors", "no collector is called %q; want %s", shorten(k.Value), strings.Join(known, ", "))
		}
		key := "collectors." + k.Value
		settings, err := mapping(name, key, v, "interval")
		if err != nil {
			return err
		}
		i := settings["interval"]
		if i == nil || isNull(i) {
			return nil
		}
		interval, err := duration(i.Value, MinInterval, MaxInterval)
		if i.Kind != yaml.ScalarNode || err != nil {
			return place{name, i.Line}.errorf(key+".interval", "%swant a duration in whole seconds from %v to %v, such as 5m", value(i), MinInterval, MaxInterval)
		}
		f.intervals[k.Value] = interval
		return nil
	})
}

// entries calls use with each key and value of a mapping whose keys are free.
// what is what it holds, for messages. No node has no entries.
func entries(name, key string, n *yaml.Node, what string, use func(k, v *yaml.Node) error) error {
	if n == nil || isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return place{name, n.Line}.errorf(key, "%swant %s", value(n), what)
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			return place{name, k.Line}.errorf(key, "%swant %s", value(k), what)
		case seen[k.Value]:
			return place{name, k.Line}.errorf(key, "key %q comes twice", shorten(k.Value))
		}
		seen[k.Value] = true
		if err := use(k, v); err != nil {
			return err
		}
	}
	return nil
}
