// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"slices"
	"strings"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
)

// Filter says which events a reader wants. The zero Filter wants all.
type Filter struct {
	// Kinds and Classes are sets of indexes; 0 means all.
	Kinds, Classes uint32
	MinSeverity    event.Severity
}

// Kinds are the kinds of events that a filter may name, in abi order.
func Kinds() []string { return slices.Clone(abi.Kinds) }

// Classes are the process classes that a filter may name.
func Classes() []string { return slices.Clone(abi.Classes) }

// Severities are the severities that a filter may name, the least first.
func Severities() []string {
	return []string{event.Info.String(), event.Warning.String(), event.Critical.String()}
}

// NewFilter builds a filter from names: kinds and classes may be given more
// than once or separated by commas, none means all; an empty severity means
// info. The error names what is unknown and what is allowed.
func NewFilter(kinds, classes []string, minSeverity string) (Filter, error) {
	var f Filter
	var err error
	if f.Kinds, err = set("kind", kinds, Kinds()); err != nil {
		return Filter{}, err
	}
	if f.Classes, err = set("class", classes, abi.Classes); err != nil {
		return Filter{}, err
	}
	if minSeverity != "" {
		i := slices.Index(Severities(), minSeverity)
		if f.MinSeverity = event.Severity(max(0, i)); i < 0 {
			return Filter{}, fmt.Errorf("unknown min_severity %q, want %s", shorten(minSeverity), strings.Join(Severities(), ", "))
		}
	}
	return f, nil
}

func set(what string, given, known []string) (uint32, error) {
	var bits uint32
	for _, list := range given {
		for name := range strings.SplitSeq(list, ",") {
			i := slices.Index(known, name)
			if i < 0 {
				return 0, fmt.Errorf("unknown %s %q, want %s", what, shorten(name), strings.Join(known, ", "))
			}
			bits |= 1 << i
		}
	}
	return bits, nil
}

// shorten keeps a message readable that repeats what somebody sent.
func shorten(s string) string { return s[:min(len(s), 100)] }

// Match says whether the filter wants the event. An event of no class passes
// only a filter that names no class.
func (f Filter) Match(ev *event.Event) bool {
	return ev.Severity >= f.MinSeverity &&
		(f.Kinds == 0 || f.Kinds>>ev.Kind&1 != 0) &&
		(f.Classes == 0 || f.Classes>>ev.Class&1 != 0)
}
