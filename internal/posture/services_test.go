// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
)

// noManager is a host on which systemd does not answer.
func noManager(ctx context.Context, root *hostfs.Tree) (map[string]unitActivity, error) {
	_, err := root.Stat(ctx, systemdSocket)
	return nil, err
}

func withoutManager() Spec { return servicesWith(noManager) }

// initScripts makes the scripts executable, as no fixture in a repository is
// sure to be.
func initScripts(t *testing.T, _, rootfs string) {
	t.Helper()
	scripts, err := filepath.Glob(filepath.Join(rootfs, "etc/init.d/*"))
	must(t, err)
	for _, f := range scripts {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), "#!") {
			must(t, os.Chmod(f, 0o755))
		}
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	golden(t, withoutManager, prepared(initScripts))
}

func TestServicesFilter(t *testing.T) {
	t.Parallel()
	rootfs := "testdata/services/debian12/rootfs"
	for name, c := range map[string]struct {
		settings  Settings
		has, lack string
	}{
		"enabled": {Settings{ServicesEnabled: true}, `"cron"`, `"nfs-server"`},
		"running": {Settings{ServicesRunning: true}, `"systemd-journald"`, `"cron"`},
		"both":    {Settings{ServicesEnabled: true, ServicesRunning: true}, `"ssh"`, `"systemd-journald"`},
	} {
		got := string(exposition(t, withoutManager(), fixtureInput(rootfs, c.settings)))
		if !strings.Contains(got, c.has) || strings.Contains(got, c.lack) {
			t.Errorf("%s: wanted %s and not %s in\n%s", name, c.has, c.lack, got)
		}
	}
}

// What systemd says wins over the control groups.
func TestServicesFromManager(t *testing.T) {
	t.Parallel()
	manager := func(context.Context, *hostfs.Tree) (map[string]unitActivity, error) {
		return map[string]unitActivity{
			"cron.service":        {"loaded", "active", "running"},
			"ssh.service":         {"loaded", "failed", "failed"},
			"setup.service":       {"loaded", "active", "exited"},
			"run-r1.service":      {"loaded", "reloading", "reload"},
			"missing.service":     {"not-found", "inactive", "dead"},
			"systemd-x.timer":     {"loaded", "active", "waiting"},
			"rsync.service":       {"masked", "inactive", "dead"},
			"\xff bad \n.service": {"loaded", "active", "running"},
		}, nil
	}
	got := string(exposition(t, servicesWith(manager), fixtureInput("testdata/services/debian12/rootfs", Settings{})))
	for _, want := range []string{
		`linux_security_service_active{service="cron"} 1`,
		`linux_security_service_active{service="ssh"} 0`,
		`linux_security_service_active{service="setup"} 1`,
		`linux_security_service_active{service="run-r1"} 1`,
		`linux_security_service_enabled{service="setup"} 0`,
		`linux_security_services_info{is_enabled="false",is_running="false",service_name="setup",service_type="systemd"} 1`,
		`linux_security_services_info{is_enabled="true",is_running="true",service_name="cron",service_type="systemd"} 1`,
		`linux_security_services_info{is_enabled="true",is_running="false",service_name="sshd",service_type="systemd"} 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	for _, no := range []string{"missing", "systemd-x", "bad"} {
		if strings.Contains(got, no) {
			t.Errorf("%s is in\n%s", no, got)
		}
	}
}

func TestCmdlineTarget(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                   "",
		"ro quiet":                           "",
		"ro single":                          "rescue.target",
		"ro -b":                              "emergency.target",
		"3":                                  "multi-user.target",
		"5 systemd.unit=rescue.target":       "rescue.target",
		"systemd.unit=a.target 5":            "graphical.target",
		"rd.systemd.unit=x.target":           "",
		"systemd.unit=no/unit":               "",
		"systemd.unit=b.target -- emergency": "b.target",
	} {
		if got := cmdlineTarget(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestUnitSlice(t *testing.T) {
	t.Parallel()
	slice := &unit{settings: []unitSetting{{"Service", "Slice", "user-%i.slice"}}}
	for _, c := range []struct {
		u          *unit
		name, want string
	}{
		{nil, "ssh.service", "/system.slice"},
		{nil, "getty@tty1.service", "/system.slice/system-getty.slice"},
		{&unit{}, "my-t@x.service", `/system.slice/system-my\x2dt.slice`},
		{slice, "user@1000.service", "/user.slice/user-1000.slice"},
	} {
		if got := unitSlice(c.u, c.name); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzParseInittab(f *testing.F) {
	f.Add("id:2:initdefault:\n::wait:/sbin/openrc default\n")
	f.Fuzz(func(t *testing.T, s string) {
		if level, _ := parseInittab(strings.NewReader(s)); strings.ContainsAny(level, "\n") {
			t.Errorf("%q from %q", level, s)
		}
		cmdlineTarget(s)
	})
}

// A run that nothing was changed for reads no unit file again; a new link, a
// change that is watched and the passing of time make it.
func TestServicesReadsUnitsOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const unitFile = "usr/lib/systemd/system/a.service"
	write(unitFile, "[Service]\nExecStart=/a\n[Install]\nAlias=b.service\n")
	units := func(context.Context, *hostfs.Tree) (map[string]unitActivity, error) { return nil, nil }
	spec := servicesWith(units)
	in := fixtureInput(dir, Settings{})
	now := in.Now()
	in.Now = func() time.Time { return now }
	enabled := func() bool {
		t.Helper()
		return strings.Contains(string(exposition(t, spec, in)), `linux_security_service_enabled{service="a"} 1`)
	}
	expect := func(when string, want bool) {
		t.Helper()
		if got := enabled(); got != want {
			t.Errorf("%s: enabled %v, want %v", when, got, want)
		}
	}
	expect("at first", false)
	if err := os.MkdirAll(filepath.Join(dir, "etc/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "etc/systemd/system/b.service")
	if err := os.Symlink("/"+unitFile, link); err != nil {
		t.Fatal(err)
	}
	expect("with its alias", true)
	write(unitFile, "[Service]\nExecStart=/a\n")
	expect("edited in place", true)
	in.Changed = true
	expect("edited and watched", false)
	in.Changed = false
	write(unitFile, "[Service]\nExecStart=/a\n[Install]\nAlias=b.service\n")
	expect("edited again", false)
	now = now.Add(unitFilesFor)
	expect("after some time", true)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	expect("without the link", false)
}
