// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads the unit files of the search path of systemd.unit(5) and asks systemd
// over D-Bus which units are active; without an answer, the control groups
// below /sys/fs/cgroup say which services have processes. What is enabled
// comes from the files in either case, by the rules of systemctl(1)
// is-enabled, so that process 1 does not have to read them. Without systemd:
// /etc/runlevels of OpenRC or /etc/rc?.d of System V.

// service is one service as it is shown.
type service struct {
	// name has no suffix; alias is set for a second name.
	name  string
	alias bool
	// enabled: it starts at boot or with another unit.
	enabled bool
	// running has a process; active is what systemd calls active, which
	// includes a finished oneshot that remains.
	running, active bool
	// unknown: nobody could say whether it runs.
	unknown bool
	// manager is systemd or init.
	manager string
}

type services struct {
	info, active, enabled, target *metric.Metric
	// units asks systemd.
	units func(ctx context.Context, root *hostfs.Tree) (map[string]unitActivity, error)

	// known is what the unit files said, by name, as long as dirs is what the
	// search path holds.
	known map[string]knownService
	dirs  []unitDir
	until time.Time
}

// unitFilesFor is how long unit files are not read again.
const unitFilesFor = 5 * time.Minute

func servicesCollector() Spec { return servicesWith(listUnits) }

func servicesWith(units func(context.Context, *hostfs.Tree) (map[string]unitActivity, error)) Spec {
	name := metric.Open("service", "Name without the suffix .service.")
	c := &services{
		units: units,
		info: metric.NewLegacy("linux_security_services_info", "Service of the host; always 1.",
			metric.Open("service_name", "Name without the suffix .service, aliases included."),
			metric.Closed("is_running", "true", "false", "unknown"),
			metric.Closed("service_type", "systemd", "init"), metric.Closed("is_enabled", "true", "false")),
		active:  metric.NewState("linux_security_service_active", "Whether the service is active.", name),
		enabled: metric.NewState("linux_security_service_enabled", "Whether the service starts by itself.", name),
		target: metric.NewLegacy("linux_security_system_target_info", "Target or runlevel that the host boots into; always 1.",
			metric.Open("current_target", "Name of the target or runlevel."),
			metric.Closed("target_type", "systemd", "init", "unknown")),
	}
	return Spec{
		Name:      "services",
		Help:      "Services that start by themselves or run, and the default target.",
		Metrics:   []*metric.Metric{c.info, c.active, c.enabled, c.target},
		MaxSeries: 1000,
		Watch: []string{
			"/etc/systemd/system/*", "/etc/systemd/system/multi-user.target.wants/*", "/run/systemd/system/*",
			"/usr/lib/systemd/system/*", "/etc/runlevels/default/*", "/etc/inittab",
		},
		Collect: c.collect,
	}
}

func (c *services) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	tree, err := readUnitTree(ctx, in.Rootfs)
	problems := []error{err}
	var list []service
	if len(tree.dirs) > 0 {
		list, err = c.systemd(ctx, in, tree)
	} else {
		list, err = initServices(ctx, in.Rootfs)
	}
	problems = append(problems, err)
	target, kind, err := defaultTarget(ctx, in, tree)
	problems = append(problems, err)
	if len(list) == 0 && kind == "unknown" && errors.Join(problems...) == nil {
		return ErrNotApplicable
	}
	c.add(in.Settings, list, out)
	out.Add(c.target, 1, target, kind)
	return Partial(errors.Join(problems...))
}

func (c *services) add(s Settings, list []service, out *metric.Batch) {
	text := map[bool]string{true: "true", false: "false"}
	for _, v := range list {
		if s.ServicesEnabled && !v.enabled || s.ServicesRunning && !v.running {
			continue
		}
		running := text[v.running]
		if v.unknown {
			running = "unknown"
		}
		out.Add(c.info, 1, v.name, running, v.manager, text[v.enabled])
		if v.alias {
			continue
		}
		out.Bool(c.enabled, v.enabled, v.name)
		if !v.unknown {
			out.Bool(c.active, v.active, v.name)
		}
	}
}

// systemd lists the services that have a unit file, that a link instantiates
// or that are loaded.
func (c *services) systemd(ctx context.Context, in *Input, tree *unitTree) ([]service, error) {
	activity, err := c.activity(ctx, in)
	problems := []error{err}
	names := make(map[string]bool)
	for _, n := range slices.Concat(tree.names("service"), tree.wanted("service")) {
		names[n] = true
	}
	for n, a := range activity.units {
		if parsed, ok := parseUnitName(n); ok && parsed.kind == "service" && a.load == "loaded" {
			names[n] = true
		}
	}
	c.forget(in, tree)
	var out []service
	for _, n := range sortedKeys(names) {
		if parsed, _ := parseUnitName(n); parsed.template() {
			continue
		}
		known, ok := c.known[n]
		if !ok {
			known, err = readService(ctx, tree, n)
			if err == nil {
				c.known[n] = known
			} else if !errors.Is(err, hostfs.ErrNotExist) {
				problems = append(problems, err)
			}
		}
		s := known.service
		activity.fill(ctx, &s, known.unit, known.file)
		out = append(out, s)
	}
	return out, errors.Join(problems...)
}

// knownService is what the unit files say about a service.
type knownService struct {
	service
	unit *unit
	file string
}

// forget drops what the unit files said when one of them was changed, when a
// file or link came or went, and after some time, because what was edited in
// place and is not watched shows in no other way.
func (c *services) forget(in *Input, tree *unitTree) {
	now := in.Now()
	if c.known != nil && !in.Changed && now.Before(c.until) && reflect.DeepEqual(tree.dirs, c.dirs) {
		return
	}
	c.known, c.dirs, c.until = make(map[string]knownService), tree.dirs, now.Add(unitFilesFor)
}

func readService(ctx context.Context, tree *unitTree, name string) (knownService, error) {
	state, u, err := tree.state(ctx, name)
	k := knownService{file: name}
	k.service = service{name: strings.TrimSuffix(name, ".service"), manager: "systemd", alias: state == unitAlias}
	if k.alias {
		k.file = u.name
		state = tree.stateOf(ctx, k.file)
	}
	k.enabled = state == unitEnabled || state == unitEnabledRuntime ||
		(state == unitGenerated || state == unitStatic && strings.Contains(k.file, "@")) && tree.started(k.file)
	if u != nil {
		// The place of the control group is all that is asked of it later.
		k.unit = &unit{settings: slices.DeleteFunc(slices.Clone(u.settings), func(s unitSetting) bool { return s.key != "Slice" })}
	}
	return k, err
}

// serviceActivity is what is known of the present: from systemd, from the
// control groups, or nothing.
type serviceActivity struct {
	units   map[string]unitActivity
	groups  *cgroupActivity
	unknown bool
}

func (c *services) activity(ctx context.Context, in *Input) (serviceActivity, error) {
	units, err := c.units(ctx, in.Rootfs)
	if err == nil {
		return serviceActivity{units: units}, nil
	}
	groups, errGroups := newCgroupActivity(ctx, in.Sysfs)
	if errGroups == nil {
		return serviceActivity{groups: groups}, nil
	}
	// sd_booted(3): the directory is there if and only if systemd runs.
	_, errBooted := in.Rootfs.Stat(ctx, "/run/systemd/system")
	if errors.Is(errBooted, hostfs.ErrNotExist) {
		return serviceActivity{}, nil
	}
	return serviceActivity{unknown: true}, fmt.Errorf("which services run: %w: mount %s or /sys/fs/cgroup of the host", err, busSocket)
}

func (a serviceActivity) fill(ctx context.Context, s *service, u *unit, name string) {
	s.unknown = a.unknown
	switch {
	case a.units != nil:
		now := a.units[name]
		s.active = now.active == "active" || now.active == "reloading" || now.active == "refreshing"
		s.running = s.active && now.sub != "exited"
	case a.groups != nil:
		s.running = a.groups.running(ctx, u, name)
		s.active = s.running
	}
}

// initServices lists the services of OpenRC or System V.
func initServices(ctx context.Context, root *hostfs.Tree) ([]service, error) {
	scripts, err := root.Glob(ctx, "/etc/init.d/*")
	problems := []error{err}
	enabled := make(map[string]bool)
	openrc := false
	levels, err := root.ReadDir(ctx, "/etc/runlevels")
	problems = append(problems, unlessMissing(err))
	for _, l := range levels {
		openrc = true
		links, err := root.Glob(ctx, "/etc/runlevels/"+l.Name+"/*")
		problems = append(problems, unlessMissing(err))
		for _, f := range links {
			enabled[f[strings.LastIndexByte(f, '/')+1:]] = true
		}
	}
	for _, pattern := range [...]string{"/etc/rc[2345].d/S[0-9][0-9]*", "/etc/rc.d/rc[2345].d/S[0-9][0-9]*"} {
		links, err := globAll(ctx, root, pattern)
		problems = append(problems, err)
		for _, f := range links {
			enabled[f[strings.LastIndexByte(f, '/')+len("/S00"):]] = true
		}
	}
	byName := make(map[string]service)
	for _, f := range scripts {
		name := f[strings.LastIndexByte(f, '/')+1:]
		if st, err := root.Stat(ctx, f); err != nil || !st.Mode.IsRegular() || st.Perm&0o111 == 0 {
			continue
		}
		s := service{name: name, manager: "init", enabled: enabled[name], unknown: !openrc}
		if openrc {
			_, err := root.Lstat(ctx, "/run/openrc/started/"+name)
			s.active, s.running = err == nil, err == nil
		}
		byName[name] = s
	}
	var out []service
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out, errors.Join(problems...)
}
