// SPDX-License-Identifier: Apache-2.0

// Package packages holds what the packages are made of, and the test that
// installs one.
package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"security-exporter/internal/testkit"
)

const mirror = "http://deb.debian.org/debian"

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

// build makes the packages of one version and returns the deb.
func build(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "make", "dist", "VERSION=v"+version, "DIST="+dir, "ARCHES="+runtime.GOARCH)
	run(t, "sh", "-c", "cd "+dir+" && sha256sum --check --quiet SHA256SUMS")
	for _, pattern := range []string{"*.deb", "*.rpm", "*.apk", "*.spdx.json"} {
		if found, _ := filepath.Glob(filepath.Join(dir, pattern)); len(found) != 1 {
			t.Fatalf("%s: %v", pattern, found)
		}
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	return found[0]
}

// TestInstall installs, upgrades, removes and purges the package in a fresh
// Debian root. The configuration survives all but the purge.
func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a root to install into")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		testkit.Missing(t, "debootstrap is missing")
	}
	older, newer := build(t, "1.0.0"), build(t, "1.1.0")
	root := t.TempDir()
	run(t, "debootstrap", "--variant=minbase", "--include=systemd", "bookworm", root, mirror)
	dpkg := func(args ...string) { t.Helper(); run(t, "chroot", append([]string{root, "dpkg"}, args...)...) }
	install := func(deb string) {
		t.Helper()
		run(t, "cp", deb, filepath.Join(root, "new.deb"))
		dpkg("--force-confdef", "-i", "/new.deb")
	}
	has := func(name string, want bool) {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(root, name)); (err == nil) != want {
			t.Errorf("/%s: there %v, want %v", name, err == nil, want)
		}
	}
	const config, enabled = "etc/security-exporter/config.yml", "etc/systemd/system/multi-user.target.wants/security-exporter.service"

	install(older)
	if got := run(t, "chroot", root, "security-exporter", "--version"); !strings.HasPrefix(got, "security-exporter v1.0.0 ") || !strings.Contains(got, "eBPF objects sha256:") {
		t.Errorf("--version: %s", got)
	}
	has(enabled, true)
	for _, name := range []string{"usr/share/man/man1/security-exporter.1.gz", "usr/share/bash-completion/completions/security-exporter"} {
		has(name, true)
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.Size() < 300 {
			t.Errorf("/%s has %d bytes", name, info.Size())
		}
	}
	if got := run(t, "chroot", root, "stat", "-c", "%U:%G %a", "/"+config); got != "root:security-exporter 640\n" {
		t.Errorf("/%s: %s", config, got)
	}
	mine := "checks:\n  waive:\n    sshd_x11: wanted\n"
	if err := os.WriteFile(filepath.Join(root, config), []byte(mine), 0o640); err != nil {
		t.Fatal(err)
	}
	kept := func(when string) {
		t.Helper()
		if data, err := os.ReadFile(filepath.Join(root, config)); err != nil || string(data) != mine {
			t.Errorf("the configuration after %s: %q %v", when, data, err)
		}
	}

	install(newer)
	if got := run(t, "chroot", root, "security-exporter", "--version"); !strings.HasPrefix(got, "security-exporter v1.1.0 ") {
		t.Errorf("--version: %s", got)
	}
	kept("the upgrade")
	has(enabled, true)

	dpkg("-r", "security-exporter")
	has("usr/bin/security-exporter", false)
	has(enabled, false)
	kept("the removal")

	dpkg("-P", "security-exporter")
	has("etc/security-exporter", false)
	if users, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err != nil || strings.Contains(string(users), "security-exporter") {
		t.Errorf("the user is still there: %v", err)
	}
}
