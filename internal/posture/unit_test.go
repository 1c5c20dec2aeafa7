// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

func TestParseUnit(t *testing.T) {
	t.Parallel()
	got, err := parseUnit(strings.NewReader("\ufeff# c\nLost=1\n[Unit]\r\nA = 1 \n;c\nB=one \\\n# between\n  two\\\n\nC\n=x\n[Service]\nExecStart=\nExecStart=/bin/x a=b\nE=last\\"))
	want := []unitSetting{
		{"Unit", "A", "1"}, {"Unit", "B", "one  two"},
		{"Service", "ExecStart", ""}, {"Service", "ExecStart", "/bin/x a=b"}, {"Service", "E", "last"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParseUnitName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]unitName{
		"ssh.service":                         {"ssh", "", "service", false},
		"getty@.service":                      {"getty", "", "service", true},
		"getty@tty1.service":                  {"getty", "tty1", "service", true},
		"a@b@c.timer":                         {"a", "b@c", "timer", true},
		`dev-\x2d.mount`:                      {`dev-\x2d`, "", "mount", false},
		"ssh.conf":                            {},
		".service":                            {},
		"@x.service":                          {},
		"a b.service":                         {},
		"a/b.service":                         {},
		strings.Repeat("x", 250) + ".service": {},
	} {
		got, ok := parseUnitName(in)
		if ok != (want.prefix != "") || ok && got != want {
			t.Errorf("%q: %+v %v, want %+v", in, got, ok, want)
		}
	}
}

func TestUnitDropinDirs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"a.service":     {"a.service.d", "service.d"},
		"a-b-c.service": {"a-b-c.service.d", "a-b-.service.d", "a-.service.d", "service.d"},
		"a-b@i.service": {"a-b@i.service.d", "a-b@.service.d", "a-@.service.d", "a-.service.d", "service.d"},
		"not a unit":    nil,
	} {
		if got := unitDropinDirs(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	f.Add("[Unit]\nA=1\\\n;\n2\n[Install]\nWantedBy=\n")
	f.Fuzz(func(t *testing.T, s string) {
		settings, _ := parseUnit(strings.NewReader(s))
		for _, a := range settings {
			if a.key == "" || a.section == "" || strings.ContainsAny(a.key+a.value, "\n") {
				t.Errorf("%+v from %q", a, s)
			}
			unitList(settings, a.section, a.key)
		}
		parseUnitName(s)
		unitDropinDirs(s)
	})
}

// systemctl(1) reads the same files when no manager runs. It does so in a root
// of its own, because --root of systemd 252 takes a link to a unit of the same
// name for a broken one.
func TestUnitStateOracle(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		testkit.Missing(t, "systemctl is missing: install systemd")
	}
	program := t.TempDir()
	copyProgram(t, systemctl, program)
	for seed := range uint64(60) {
		dir := t.TempDir()
		generateUnits(t, dir, rand.New(rand.NewPCG(seed, 7)))
		tree, err := readUnitTree(t.Context(), hostfs.New(hostfs.Paths{Rootfs: dir}).Rootfs)
		if err != nil {
			t.Fatal(err)
		}
		names := tree.names("service")
		instances := tree.wanted("service")
		want := systemctlStates(t, program, dir, instances)
		if len(want) < len(names) {
			t.Fatalf("seed %d: systemctl lists %d of %d units", seed, len(want), len(names))
		}
		for _, name := range append(names, instances...) {
			got, _, err := tree.state(t.Context(), name)
			if got == unitBad && !slices.Contains(names, name) {
				// is-enabled says that in another way.
				got = ""
			}
			if got != want[name] {
				t.Errorf("seed %d: %s is %q (%v), systemctl says %q\n%s", seed, name, got, err, want[name], treeText(t, dir))
			}
		}
	}
}

// copyProgram copies a program with its libraries below root.
func copyProgram(t *testing.T, program, root string) {
	t.Helper()
	out, err := exec.Command("ldd", program).Output()
	must(t, err)
	for _, f := range append(strings.Fields(string(out)), program) {
		if !filepath.IsAbs(f) {
			continue
		}
		b, err := os.ReadFile(f)
		must(t, err)
		to := filepath.Join(root, f)
		must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(t, os.WriteFile(to, b, 0o755))
	}
}

// systemctlStates returns what systemctl says of all units and of instances, by
// name, on a host whose files are those below dir.
func systemctlStates(t *testing.T, program, dir string, instances []string) map[string]string {
	t.Helper()
	const script = `mount -t overlay overlay -o "lowerdir=$0:$1" "$2" || exit
s=$3
cd "$2"
shift 3
export SYSTEMD_OFFLINE=1
chroot . "$s" --no-legend --no-pager --type=service list-unit-files || exit
for i; do echo "$i $(chroot . "$s" is-enabled "$i" 2>/dev/null)"; done`
	systemctl, err := exec.LookPath("systemctl")
	must(t, err)
	args := append([]string{"-c", script, dir, program, t.TempDir(), systemctl}, instances...)
	cmd := exec.Command("sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl: %v: %s", err, out)
	}
	states := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 2 {
			states[f[0]] = f[1]
		}
	}
	return states
}

// generateUnits writes a few units with everything that makes a state.
func generateUnits(t *testing.T, root string, r *rand.Rand) {
	t.Helper()
	write := func(name, text string) {
		f := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(f), 0o755))
		if _, err := os.Lstat(f); err != nil {
			must(t, os.WriteFile(f, []byte(text), 0o644))
		}
	}
	link := func(target, name string) {
		f := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(f), 0o755))
		if _, err := os.Lstat(f); err != nil {
			must(t, os.Symlink(target, f))
		}
	}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	config := []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system"}
	units := []string{"a.service", "b.service", "c-d.service", "t@.service", "u@.service"}
	for _, u := range units {
		install := pick("", "[Install]\nWantedBy=multi-user.target\n", "[Install]\nAlias=al.service\n",
			"[Install]\nAlso=b.service\n", "[Install]\nRequiredBy=x.target\nAlias="+strings.Replace(u, ".service", "-alias.service", 1)+"\n",
			"[Install]\nWantedBy=a.target\nDefaultInstance=one\n", "[Install]\nWantedBy=a.target\nWantedBy=\n")
		text := "[Service]\nExecStart=/bin/true\n" + install
		dir := pick("/usr/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator", "/usr/local/lib/systemd/system")
		if r.IntN(8) == 0 {
			write("/opt/"+u, text)
			link("/opt/"+u, dir+"/"+u)
		} else {
			write(dir+"/"+u, text)
		}
		switch r.IntN(10) {
		case 0:
			link("/dev/null", pick(config...)+"/"+u)
		case 1:
			write(pick(config...)+"/"+u, "")
		case 2:
			link(dir+"/"+u, pick(config...)+"/"+u)
		case 3:
			write(pick(config...)+"/"+u+".d/install.conf", "[Install]\nWantedBy=drop.target\n")
		}
		for range r.IntN(3) {
			name := u
			if strings.Contains(u, "@") && r.IntN(4) > 0 {
				name = strings.Replace(u, "@", "@"+pick("one", "two"), 1)
			}
			link(dir+"/"+u, pick(config...)+"/"+pick("multi-user.target.wants", "x.target.requires")+"/"+name)
		}
		if r.IntN(3) == 0 {
			alias := pick("al.service", "other.service", strings.Replace(u, ".service", "-alias.service", 1))
			if !strings.Contains(u, "@") {
				link(pick(dir+"/"+u, u), pick(config...)+"/"+alias)
			}
		}
	}
	write("/usr/lib/systemd/system/multi-user.target", "[Unit]\nDescription=x\n")
}

// treeText is a listing for messages.
func treeText(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(root, func(p string, i os.FileInfo, err error) error {
		if err != nil || i.IsDir() {
			return err
		}
		rel := strings.TrimPrefix(p, root)
		if target, err := os.Readlink(p); err == nil {
			fmt.Fprintf(&b, "%s -> %s\n", rel, target)
			return nil
		}
		text, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s: %q\n", rel, text)
		return err
	}))
	return b.String()
}
