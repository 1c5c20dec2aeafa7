// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"security-exporter/internal/hostfs"
)

// Asks systemd which units are active: org.freedesktop.systemd1(5), over its
// own socket, which is for root, or over the system bus.
const (
	systemdSocket = "/run/systemd/private"
	busSocket     = "/run/dbus/system_bus_socket"
)

// unitActivity is the present state of a loaded unit.
type unitActivity struct {
	// load is loaded, not-found, masked, ...; active is active, reloading,
	// inactive, failed, activating, deactivating; sub depends on the type, such
	// as running, exited, dead, listening.
	load, active, sub string
}

// managerTimeout is how long each of the two sockets may take: both together
// leave time for the control groups.
const managerTimeout = 3 * time.Second

// listUnits returns the loaded units by name. ErrNotExist means that there is
// no socket.
func listUnits(ctx context.Context, root *hostfs.Tree) (map[string]unitActivity, error) {
	units, err := listUnitsAt(ctx, root, systemdSocket, false)
	if err == nil {
		return units, nil
	}
	units, errBus := listUnitsAt(ctx, root, busSocket, true)
	switch {
	case errBus == nil:
		return units, nil
	case errors.Is(errBus, hostfs.ErrNotExist):
		return nil, err
	case errors.Is(err, hostfs.ErrNotExist):
		return nil, errBus
	}
	return nil, errors.Join(err, errBus)
}

func listUnitsAt(ctx context.Context, root *hostfs.Tree, socket string, bus bool) (map[string]unitActivity, error) {
	ctx, cancel := context.WithTimeout(ctx, managerTimeout)
	defer cancel()
	var conn net.Conn
	err := root.Handle(ctx, socket, func(procPath string) (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", procPath)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to systemd at %s: %w", socket, err)
	}
	c, err := newDBus(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd at %s: %w", socket, err)
	}
	defer func() { _ = c.Close() }()
	method := dbusMethod{"", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "ListUnits"}
	if bus {
		if _, err := c.call(dbusMethod{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"}, "s"); err != nil {
			return nil, err
		}
		method.dest = "org.freedesktop.systemd1"
	}
	body, err := c.call(method, "a(ssssssouso)")
	if err != nil {
		return nil, err
	}
	return decodeUnits(body)
}

// decodeUnits reads the reply of ListUnits: name, description, load, active,
// sub, followed, path, job, job type, job path.
func decodeUnits(r *dbusReader) (map[string]unitActivity, error) {
	units := make(map[string]unitActivity)
	r.array(8, func() {
		r.align(8)
		name := r.str()
		r.str()
		u := unitActivity{r.str(), r.str(), r.str()}
		r.str()
		r.str()
		r.u32()
		r.str()
		r.str()
		if r.err == nil {
			units[name] = u
		}
	})
	if r.err != nil {
		return nil, fmt.Errorf("D-Bus reply of ListUnits: %w", r.err)
	}
	return units, nil
}

// cgroupRoots are where the groups of systemd are: cgroup v2, v1 and the two
// together (cgroups(7)).
var cgroupRoots = [...]string{"/fs/cgroup", "/fs/cgroup/systemd", "/fs/cgroup/unified"}

// cgroupActivity tells from the control groups whether a service has
// processes. A service that has none but counts as active, such as a finished
// oneshot, is not seen.
type cgroupActivity struct {
	sys  *hostfs.Tree
	root string
}

// newCgroupActivity fails with ErrNotExist where there are no groups of
// systemd.
func newCgroupActivity(ctx context.Context, sys *hostfs.Tree) (*cgroupActivity, error) {
	for _, root := range cgroupRoots {
		if _, err := sys.Stat(ctx, root+"/system.slice"); err == nil {
			return &cgroupActivity{sys, root}, nil
		}
	}
	return nil, fmt.Errorf("control groups of systemd: %w", hostfs.ErrNotExist)
}

func (c *cgroupActivity) running(ctx context.Context, u *unit, name string) bool {
	dir := c.root + unitSlice(u, name) + "/" + name
	b, err := c.sys.ReadLimit(ctx, dir+"/cgroup.events", hostfs.ValueLimit)
	if err == nil {
		return containsLine(string(b), "populated 1")
	}
	b, err = c.sys.ReadLimit(ctx, dir+"/cgroup.procs", hostfs.DefaultLimit)
	return err == nil && len(b) > 0
}
