// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// suite is a test binary, by the name it has in the machine. Policies other
// than auto are for those of its tests that others names, as for go test -run:
// the rest take each rung themselves, or test hooks of which there is one kind.
type suite struct {
	name, path string
	others     string
	apart      bool // runs when it is named, and not among all
}

// suites in the order in which they run.
var suites = []suite{
	{name: "kernel", path: "./internal/sensor/probes/kernel"},
	{name: "file", path: "./internal/sensor/probes/file", others: "Test"},
	{name: "privilege", path: "./internal/sensor/probes/privilege", others: "^TestCalls$|^TestEvents$|^TestUserNamespaces$|^TestThreadTableFull$"},
	{name: "network", path: "./internal/sensor/probes/network", others: "^TestUDP"},
	{name: "process", path: "./internal/sensor/probes/process"},
	{name: "costs", path: "./test/kernels/costs", apart: true},
	{name: "host", path: "./test/kernels"},
}

// session is one life of a machine.
type session struct {
	parameter string   // of the kernel's command line
	runs      []string // suite/policy/tests
}

// lockdowns are sessions of their own: what is locked down stays so.
var lockdowns = []string{"lockdown=integrity", "lockdown=confidentiality"}

const lockdownTest = "TestLockdown"

// sessions are those in which a kernel runs everything chosen.
func sessions(o options, k kernel) []session {
	out := []session{{runs: runs(o, k)}}
	host := o.suites == "" || slices.Contains(strings.Split(o.suites, ","), "host")
	if chosen, err := regexp.MatchString(o.run, lockdownTest); err != nil || !chosen || !host {
		return out
	}
	for _, parameter := range lockdowns {
		out = append(out, session{parameter, []string{"host/" + policies[0] + "/^" + lockdownTest + "$"}})
	}
	return out
}

// suites are the names of those that the session runs.
func (s session) suites() []string {
	var out []string
	for _, run := range s.runs {
		name, _, _ := strings.Cut(run, "/")
		out = append(out, name)
	}
	return out
}

// runs are the suites chosen, each with a policy and the tests that run there.
func runs(o options, k kernel) []string {
	var out []string
	for _, s := range suites {
		if o.suites == "" && s.apart || o.suites != "" && !slices.Contains(strings.Split(o.suites, ","), s.name) {
			continue
		}
		for policy := range strings.SplitSeq(o.policies, ",") {
			if policy == k.same {
				continue
			}
			tests := "Test"
			if policy != policies[0] {
				tests = s.others
			}
			if o.run != "" && tests != "" {
				tests = o.run
			}
			if tests != "" {
				out = append(out, s.name+"/"+policy+"/"+tests)
			}
		}
	}
	return out
}

// build makes the static binaries that run in the machine.
func build(ctx context.Context, folder, arch string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	goBuild := func(arguments ...string) error {
		c := exec.CommandContext(ctx, "go", arguments...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOOS=linux")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(arguments, " "), err, out)
		}
		return nil
	}
	for _, s := range suites {
		if err := goBuild("test", "-c", "-tags=emulated", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(folder, s.name+".test"), s.path); err != nil {
			return err
		}
	}
	return goBuild("build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(folder, "security-exporter"), "./cmd/security-exporter")
}

// kernelImage finds the image among the unpacked packages.
func kernelImage(p packages) (string, error) {
	for _, folder := range p.folders {
		for _, pattern := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"} {
			if found, _ := filepath.Glob(filepath.Join(folder, pattern)); len(found) == 1 {
				return found[0], nil
			}
		}
	}
	return "", fmt.Errorf("no kernel image in %s", strings.Join(p.folders, ", "))
}

// modules are those that the tests load, or init for them.
var modules = []string{"dummy", "veth"}

// module reads a module from the packages, decompressed.
func module(ctx context.Context, p packages, name string) ([]byte, error) {
	for _, folder := range p.folders {
		var found string
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if base := filepath.Base(path); err == nil && !d.IsDir() && (base == name+".ko" || base == name+".ko.xz") {
				found = path
			}
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case strings.HasSuffix(found, ".xz"):
			return exec.CommandContext(ctx, "xz", "-dc", found).Output()
		case found != "":
			return os.ReadFile(found)
		}
	}
	return nil, fmt.Errorf("no module %s in %s", name, strings.Join(p.folders, ", "))
}

// applets are the programs that tests and init run.
var applets = []string{
	"sh", "cat", "cp", "chmod", "chown", "echo", "grep", "head", "hostname", "insmod", "ifconfig", "ip", "kill", "ln", "ls", "mkdir",
	"mknod", "mount", "mv", "poweroff", "rm", "rmdir", "sleep", "switch_root", "sync", "tail", "timeout", "tr", "umount", "uname", "wget",
}

// image writes the initramfs of a machine, with the tests of some suites.
func image(ctx context.Context, file string, p packages, binaries, arch string, suites []string) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if closed := out.Close(); err == nil {
			err = closed
		}
	}()
	buffered := bufio.NewWriter(out)
	c := &cpio{out: buffered}
	for _, folder := range []string{"bin", "dev", "etc", "lib", "proc", "root", "sys", "tests", "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/sbin", "var", "run", "home", "opt", "srv"} {
		c.folder(folder, 0o755)
	}
	c.folder("tmp", 0o1777)
	c.folder("var/tmp", 0o1777)
	c.device("dev/console", 5, 1)
	c.file("init", initScript, 0o755)
	c.file("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"), 0o644)
	c.file("etc/group", []byte("root:x:0:\nuser:x:1000:\n"), 0o644)
	c.file("etc/shadow", []byte("root:*:1:0:99999:7:::\n"), 0o600)
	c.file("etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644)
	// Programs that are copied, and run by another name.
	c.file("bin/true", program(arch, exitZero[arch]), 0o755)
	c.file("usr/bin/env", program(arch, runArguments[arch]), 0o755)
	busybox, err := os.ReadFile(first(filepath.Join(p.busybox, "bin/busybox"), filepath.Join(p.busybox, "usr/bin/busybox")))
	if err != nil {
		return err
	}
	c.file("bin/busybox", busybox, 0o755)
	for _, name := range applets {
		c.link(path.Join("bin", name), "busybox")
	}
	for _, name := range modules {
		content, err := module(ctx, p, name)
		if err != nil {
			return err
		}
		c.file("lib/"+name+".ko", content, 0o644)
	}
	entries, err := os.ReadDir(binaries)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if suite, test := strings.CutSuffix(entry.Name(), ".test"); test && !slices.Contains(suites, suite) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(binaries, entry.Name()))
		if err != nil {
			return err
		}
		c.file("tests/"+entry.Name(), content, 0o755)
	}
	c.end()
	if c.err != nil {
		return c.err
	}
	return buffered.Flush()
}

func first(paths ...string) string {
	i := slices.IndexFunc(paths, func(path string) bool { _, err := os.Stat(path); return err == nil })
	return paths[max(i, 0)]
}
