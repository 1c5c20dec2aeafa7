// SPDX-License-Identifier: Apache-2.0

// Package packages holds what the packages are made of, and the tests that
// install them.
package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
	"security-exporter/internal/testkit/apt"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// build makes the packages of one version and returns their folder.
func build(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "make", "dist", "VERSION=v"+version, "REVISION="+revision, "DIST="+dir, "ARCHES="+runtime.GOARCH)
	run(t, "sh", "-c", "cd "+dir+" && sha256sum --check --quiet SHA256SUMS")
	for _, pattern := range []string{"*.deb", "*.rpm", "*.apk", "*.spdx.json", "*.tgz"} {
		only(t, dir, pattern)
	}
	return dir
}

// only is the path of the one file of a folder that fits.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found[0]
}

const (
	revision = "0123456789abcdef0123456789abcdef01234567"
	settings = "etc/security-exporter/config.yml"
	enabled  = "etc/systemd/system/multi-user.target.wants/security-exporter.service"
	program  = "usr/bin/security-exporter"
	mine     = "checks:\n  waive:\n    sshd_x11: wanted\n"
)

// system is a Debian root that packages are installed into.
type system struct {
	*testing.T
	root string
}

func (s system) chroot(args ...string) string {
	s.Helper()
	return run(s.T, "chroot", append([]string{s.root}, args...)...)
}

func (s system) path(name string) string { return filepath.Join(s.root, name) }

// has checks whether files are there.
func (s system) has(want bool, names ...string) {
	s.Helper()
	for _, name := range names {
		if _, err := os.Lstat(s.path(name)); (err == nil) != want {
			s.Errorf("/%s: there %v, want %v", name, err == nil, want)
		}
	}
}

// runs checks that the program is of that version, and says so.
func (s system) runs(version string) {
	s.Helper()
	want := regexp.MustCompile(`^security-exporter v` + regexp.QuoteMeta(version) + ` \(commit ` + revision + `, ` + regexp.QuoteMeta(runtime.Version()) +
		`, linux/` + runtime.GOARCH + `\)\neBPF objects sha256:[0-9a-f]{64}\n$`)
	if got := s.chroot("/"+program, "--version"); !want.MatchString(got) {
		s.Errorf("--version: %q", got)
	}
}

// installed checks what a first install leaves.
func (s system) installed(version string) {
	s.Helper()
	s.runs(version)
	s.has(true, enabled)
	for _, name := range []string{"usr/share/man/man1/security-exporter.1.gz", "usr/share/bash-completion/completions/security-exporter"} {
		if info, err := os.Stat(s.path(name)); err != nil || info.Size() < 300 {
			s.Errorf("/%s: %v %v", name, info, err)
		}
	}
	if got := s.chroot("stat", "-c", "%U:%G %a", "/"+settings); got != "root:security-exporter 640\n" {
		s.Errorf("/%s: %s", settings, got)
	}
}

// change writes a configuration as the user would; kept checks that it is there.
func (s system) change() {
	s.Helper()
	if err := os.WriteFile(s.path(settings), []byte(mine), 0o640); err != nil {
		s.Fatal(err)
	}
}

func (s system) kept(name, when string) {
	s.Helper()
	if data, err := os.ReadFile(s.path(name)); err != nil || string(data) != mine {
		s.Errorf("the configuration after %s: %q %v", when, data, err)
	}
}

// clean takes away what a removal leaves, so that the next one begins anew.
func (s system) clean() {
	s.Helper()
	if err := os.RemoveAll(s.path("etc/security-exporter")); err != nil {
		s.Fatal(err)
	}
	s.chroot("userdel", "security-exporter")
}

// TestInstall installs, upgrades and removes each kind of package in a fresh
// Debian root.
func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a root to install into")
	}
	for _, name := range []string{"debootstrap", "rpm"} {
		if _, err := exec.LookPath(name); err != nil {
			testkit.Missing(t, "%s is missing", name)
		}
	}
	mirror, err := apt.Mirror(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	older, newer := build(t, "1.0.0"), build(t, "1.1.0")
	root := t.TempDir()
	run(t, "debootstrap", "--variant=minbase", "--include=systemd", "bookworm", root, mirror)
	t.Run("deb", func(t *testing.T) { testDeb(system{t, root}, older, newer) })
	t.Run("rpm", func(t *testing.T) { testRPM(system{t, root}, older, newer) })
	t.Run("apk", func(t *testing.T) { testAPK(system{t, root}, older, newer) })
}

// The configuration survives all but the purge.
func testDeb(s system, older, newer string) {
	install := func(dir string) {
		s.Helper()
		run(s.T, "cp", only(s.T, dir, "*.deb"), s.path("new.deb"))
		s.chroot("dpkg", "--force-confdef", "-i", "/new.deb")
	}
	install(older)
	s.installed("1.0.0")
	s.change()

	install(newer)
	s.runs("1.1.0")
	s.kept(settings, "the upgrade")
	s.has(true, enabled)

	s.chroot("dpkg", "-r", "security-exporter")
	s.has(false, program, enabled)
	s.kept(settings, "the removal")

	s.chroot("dpkg", "-P", "security-exporter")
	s.has(false, "etc/security-exporter")
	if users, err := os.ReadFile(s.path("etc/passwd")); err != nil || strings.Contains(string(users), "security-exporter") {
		s.Errorf("the user is still there: %v", err)
	}
}

// rpm renames a changed configuration when it removes the package.
func testRPM(s system, older, newer string) {
	// Debian's packages are not in rpm's database, so /bin/sh is missing there.
	rpm := func(args ...string) string {
		s.Helper()
		return run(s.T, "rpm", append([]string{"--root", s.root}, args...)...)
	}
	rpm("--nodeps", "--install", only(s.T, older, "*.rpm"))
	s.installed("1.0.0")
	rpm("--nodeps", "--verify", "security-exporter")
	s.change()

	rpm("--nodeps", "--upgrade", only(s.T, newer, "*.rpm"))
	s.runs("1.1.0")
	s.kept(settings, "the upgrade")
	s.has(true, enabled)
	if got := rpm("--query", "security-exporter"); !regexp.MustCompile(`^security-exporter-1\.1\.0-1\.\S+\n$`).MatchString(got) {
		s.Errorf("installed: %q", got)
	}

	rpm("--erase", "security-exporter")
	s.has(false, program, enabled, settings)
	s.kept(settings+".rpmsave", "the removal")
	s.clean()
}

// Debian has no apk: the scripts and files go into the root in apk's order.
func testAPK(s system, older, newer string) {
	was, is := readAPK(s.T, only(s.T, older, "*.apk"), "1.0.0"), readAPK(s.T, only(s.T, newer, "*.apk"), "1.1.0")
	script := func(p apk, name string, args ...string) {
		s.Helper()
		if err := os.WriteFile(s.path("script"), p.scripts[name], 0o755); err != nil {
			s.Fatal(err)
		}
		s.chroot(append([]string{"/script"}, args...)...)
	}
	unpack := func(p apk) {
		s.Helper()
		if err := os.WriteFile(s.path("data.tar.gz"), p.data, 0o600); err != nil {
			s.Fatal(err)
		}
		s.chroot("tar", "-xzf", "/data.tar.gz", "-C", "/", "--warning=no-unknown-keyword")
	}
	script(was, ".pre-install", "1.0.0")
	unpack(was)
	script(was, ".post-install", "1.0.0")
	s.installed("1.0.0")

	// A service that its user has switched off stays off.
	s.chroot("systemctl", "disable", "security-exporter.service")
	script(is, ".pre-upgrade", "1.1.0", "1.0.0")
	unpack(is)
	script(is, ".post-upgrade", "1.1.0", "1.0.0")
	s.runs("1.1.0")
	s.has(false, enabled)

	s.chroot("systemctl", "enable", "security-exporter.service")
	script(is, ".pre-deinstall", "1.1.0")
	s.has(false, enabled)
	script(is, ".post-deinstall", "1.1.0")
}
