// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"path"
	"slices"
	"strings"
)

// The states of systemctl(1) is-enabled.
const (
	unitEnabled        = "enabled"
	unitEnabledRuntime = "enabled-runtime"
	unitLinked         = "linked"
	unitLinkedRuntime  = "linked-runtime"
	unitAlias          = "alias"
	unitMasked         = "masked"
	unitMaskedRuntime  = "masked-runtime"
	unitStatic         = "static"
	unitDisabled       = "disabled"
	unitIndirect       = "indirect"
	unitGenerated      = "generated"
	unitTransient      = "transient"
	unitBad            = "bad"
)

// state is what systemctl is-enabled says of a unit, from the files alone. A
// unit without a file is ErrNotExist.
func (t *unitTree) state(ctx context.Context, name string) (string, *unit, error) {
	u, err := t.load(ctx, name)
	if err != nil {
		return unitBad, u, err
	}
	dir := path.Dir(u.path)
	switch {
	case u.masked && strings.HasPrefix(dir, "/run/"):
		return unitMaskedRuntime, u, nil
	case u.masked:
		return unitMasked, u, nil
	}
	n, _ := parseUnitName(u.name)
	switch {
	case u.sameName:
		// The manager starts it, but systemctl 252 has no state for it.
		return unitBad, u, nil
	case u.name != name && !n.instanced():
		return unitAlias, u, nil
	case u.linked:
	case strings.HasPrefix(dir, "/run/systemd/generator"):
		return unitGenerated, u, nil
	case dir == "/run/systemd/transient":
		return unitTransient, u, nil
	}
	return t.installState(u), u, nil
}

// installState is the state of a unit with an [Install] section or without.
func (t *unitTree) installState(u *unit) string {
	if s := t.linkState(u, true); s != "" {
		return s
	}
	if t.linkState(u, false) != "" {
		return unitIndirect
	}
	for _, key := range [...]string{"WantedBy", "RequiredBy", "UpheldBy", "Alias"} {
		if len(unitList(u.install, "Install", key)) > 0 {
			return unitDisabled
		}
	}
	if len(unitList(u.install, "Install", "Also")) > 0 {
		return unitIndirect
	}
	return unitStatic
}

// linkState is the state by the links that start the unit, "" if there is none.
// With own, only links count that enabling the unit would make.
func (t *unitTree) linkState(u *unit, own bool) string {
	var runtime, anywhere, sameName, sameNameRuntime, below bool
	for i := range t.dirs {
		d := &t.dirs[i]
		linked, same := d.startedBy(u, own, below)
		inRun := strings.HasPrefix(d.path, "/run/")
		switch {
		case linked && d.path == unitConfigDir:
			return unitEnabled
		case linked && inRun:
			runtime = true
		case linked:
			anywhere = true
		case same && d.path == unitConfigDir:
			sameName = true
		case same && inRun:
			sameNameRuntime = true
		}
		below = below || !u.linked && path.Dir(u.path) == d.path
	}
	n, _ := parseUnitName(u.name)
	switch {
	case runtime:
		return unitEnabledRuntime
	case anywhere && n.instanced():
		// A distribution may start an instance, which exists in no other way.
		return unitStatic
	case sameName:
		return unitLinked
	case sameNameRuntime:
		return unitLinkedRuntime
	}
	return ""
}

// startedBy is whether a directory has a link that starts the unit, and whether
// it has a link of the same name to the file of the unit. below says that the
// file of the unit lies in a directory before this one.
func (d *unitDir) startedBy(u *unit, own, below bool) (linked, same bool) {
	known := u.knownNames()
	counts := func(name string) bool { return !own || slices.Contains(known, name) }
	for _, links := range d.links {
		for name, target := range links {
			if (name == u.name || path.Base(target) == u.name) && counts(name) {
				return true, same
			}
		}
	}
	for name, target := range d.files {
		if target == "" {
			continue
		}
		toName, fromName := path.Base(target) == u.name, name == u.name && !below
		if toName && fromName {
			same = true
			continue
		}
		if (toName || fromName) && counts(name) {
			return true, same
		}
	}
	return false, same
}

// knownNames are the names under which enabling the unit makes links.
func (u *unit) knownNames() []string {
	out := append([]string{u.name}, unitList(u.install, "Install", "Alias")...)
	if n, ok := parseUnitName(u.name); ok && n.template() {
		if i := unitValue(u.install, "Install", "DefaultInstance"); i != "" {
			out = append(out, n.withInstance(i))
		}
	}
	return out
}

// stateOf is state without the unit.
func (t *unitTree) stateOf(ctx context.Context, name string) string {
	s, _, _ := t.state(ctx, name)
	return s
}

// started is whether any link in the search path starts the unit, the
// distribution's own included.
func (t *unitTree) started(name string) bool {
	for _, d := range t.dirs {
		for _, links := range d.links {
			if _, ok := links[name]; ok {
				return true
			}
		}
	}
	return false
}

// unitSlice is the path of the control group above that of a service: Slice=,
// or system.slice, with a slice for each template (systemd.slice(5)).
func unitSlice(u *unit, name string) string {
	slice := "system.slice"
	n, ok := parseUnitName(name)
	if ok && n.instanced() {
		slice = "system-" + strings.ReplaceAll(n.prefix, "-", `\x2d`) + ".slice"
	}
	if u != nil {
		if s := unitValue(u.settings, "Service", "Slice"); s != "" {
			slice = strings.ReplaceAll(s, "%i", n.instance)
		}
	}
	parts := strings.Split(strings.TrimSuffix(slice, ".slice"), "-")
	var out strings.Builder
	for i := range parts {
		out.WriteString("/" + strings.Join(parts[:i+1], "-") + ".slice")
	}
	return out.String()
}
