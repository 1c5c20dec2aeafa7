// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/testkit/apt"
)

// packages are the folders into which a kernel's packages, and busybox's, are
// unpacked.
type packages struct {
	version string
	folders []string
	busybox string
}

// fetch gets a kernel and busybox with apt, which verifies them.
func fetch(ctx context.Context, o options, k kernel) (packages, error) {
	t := tools
	t.arch = k.arch
	from, err := newArchive(ctx, o, t)
	if err != nil {
		return packages{}, err
	}
	busybox, err := from.get(ctx, "busybox-static")
	if err != nil {
		return packages{}, err
	}
	if from, err = newArchive(ctx, o, k); err != nil {
		return packages{}, err
	}
	builds, err := from.builds(ctx, k)
	if err != nil {
		return packages{}, err
	}
	// An index may name a build that the mirror has no longer.
	const tries = 6
	var errs []error
	for _, b := range builds[:min(tries, len(builds))] {
		p := packages{version: b.version, busybox: busybox}
		var err error
		for _, name := range b.names() {
			var folder string
			if folder, err = from.get(ctx, name); err != nil {
				break
			}
			p.folders = append(p.folders, folder)
		}
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return packages{}, errors.Join(errs...)
}

// archive is one suite for one architecture, with lists and a status of its
// own: the system's sources and packages are left alone.
type archive struct {
	options []string
	folder  string // of the suite's index
	debs    string
}

func newArchive(ctx context.Context, o options, k kernel) (*archive, error) {
	folder := filepath.Join(o.cache, "apt", k.suite+"-"+k.arch)
	debs := filepath.Join(o.cache, "packages", k.suite)
	for _, path := range []string{filepath.Join(folder, "lists/partial"), filepath.Join(folder, "cache/archives/partial"), debs} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	mirror := o.mirror
	if mirror == "" {
		var err error
		if mirror, err = apt.Mirror(ctx); err != nil {
			return nil, err
		}
	}
	if k.security {
		mirror += "-security"
	}
	sources, status := filepath.Join(folder, "sources.list"), filepath.Join(folder, "status")
	line := fmt.Sprintf("deb [arch=%s signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", k.arch, mirror, k.suite)
	if err := errors.Join(os.WriteFile(sources, []byte(line), 0o644), os.WriteFile(status, nil, 0o644)); err != nil {
		return nil, err
	}
	a := &archive{folder: folder, debs: debs, options: []string{
		"-o", "APT::Architecture=" + k.arch, "-o", "APT::Architectures=" + k.arch,
		"-o", "Dir::State::lists=" + filepath.Join(folder, "lists"), "-o", "Dir::State::status=" + status,
		"-o", "Dir::Cache=" + filepath.Join(folder, "cache"),
		"-o", "Dir::Etc::sourcelist=" + sources, "-o", "Dir::Etc::sourceparts=-",
		"-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3",
	}}
	if _, err := a.command(ctx, folder, "apt-get", "update", "-qq"); err != nil {
		return nil, fmt.Errorf("index of %s for %s: %w", k.suite, k.arch, err)
	}
	return a, nil
}

func (a *archive) command(ctx context.Context, folder, name string, arguments ...string) (string, error) {
	c := exec.CommandContext(ctx, name, append(slices.Clone(a.options), arguments...)...)
	c.Dir = folder
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// get downloads a package, unless it is there, and returns the folder it is
// unpacked in.
func (a *archive) get(ctx context.Context, name string) (string, error) {
	// Where the file is there already, apt-get prints nothing.
	uris, err := a.command(ctx, a.folder, "apt-get", "download", "--print-uris", name)
	if err != nil {
		return "", fmt.Errorf("package %s: %w", name, err)
	}
	fields := strings.Fields(uris)
	if len(fields) < 2 {
		return "", fmt.Errorf("package %s: apt names no file: %q", name, uris)
	}
	deb := filepath.Join(a.debs, filepath.Base(fields[1]))
	// apt-get keeps a file whose checksum is right.
	if _, err := a.command(ctx, a.debs, "apt-get", "download", "-qq", name); err != nil {
		return "", fmt.Errorf("package %s: %w", name, err)
	}
	folder := strings.TrimSuffix(deb, ".deb")
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	unpacked := folder + ".new"
	if err := os.RemoveAll(unpacked); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, unpacked).CombinedOutput(); err != nil {
		return "", fmt.Errorf("package %s: unpack: %w: %s", name, err, out)
	}
	return folder, os.Rename(unpacked, folder)
}

// build is one kernel that a suite offers.
type kernelBuild struct {
	version      string
	name         string
	split        bool // image and modules are packages of their own
	signed       bool
	architecture string
}

func (b kernelBuild) names() []string {
	if b.split {
		return []string{b.name, "linux-modules-" + b.version + "-cloud-" + b.architecture}
	}
	return []string{b.name}
}

// builds lists what the suite has of a series, newest first, signed before
// unsigned.
func (a *archive) builds(ctx context.Context, k kernel) ([]kernelBuild, error) {
	names, err := a.command(ctx, a.folder, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(`^linux-(image|binary)(-unsigned)?-([0-9][^-]*(?:-[0-9]+)?)-cloud-` + k.arch + `(-unsigned)?$`)
	var out []kernelBuild
	for name := range strings.FieldsSeq(names) {
		m := pattern.FindStringSubmatch(name)
		if m == nil || !strings.HasPrefix(m[3], k.series) {
			continue
		}
		b := kernelBuild{version: m[3], name: name, split: m[1] == "binary", signed: m[2] == "" && m[4] == "", architecture: k.arch}
		if !b.split && strings.Contains(names, "linux-binary-"+m[3]+"-cloud-"+k.arch) {
			continue // nothing but a dependency on the other two
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no package linux-image-%s*-cloud-%s in %s", k.series, k.arch, k.suite)
	}
	slices.SortFunc(out, func(x, y kernelBuild) int {
		if c := slices.Compare(numbers(y.version), numbers(x.version)); c != 0 {
			return c
		}
		return strings.Compare(x.name, y.name)
	})
	return out, nil
}

func numbers(version string) []int {
	var out []int
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(version, -1) {
		n, _ := strconv.Atoi(digits)
		out = append(out, n)
	}
	return out
}
