// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		console                 string
		passed, skipped, failed int
		failures                []string
	}{
		"a test within a test is the case": {
			"@@ begin file auto\n=== RUN   TestA\n    --- PASS: TestA/one (0.1s)\n    --- PASS: TestA/two (0.1s)\n--- PASS: TestA (0.2s)\n@@ end file auto 0 1.0 2.0",
			2, 0, 0, nil,
		},
		"skipped": {"@@ begin file auto\n--- SKIP: TestA (0.0s)\n@@ end file auto 0 1.0 2.0", 0, 1, 0, nil},
		"failed, with the test around it": {
			"@@ begin file auto\n    --- FAIL: TestA/one (0.1s)\n    --- PASS: TestA/two (0.1s)\n--- FAIL: TestA (0.2s)\n@@ end file auto 1 1.0 2.0",
			1, 0, 2, []string{"file: TestA", "file: TestA/one"},
		},
		"failed, with what it said last": {
			"@@ begin file auto\n=== RUN   TestA\n=== RUN   TestA/one\n    a_test.go:1: got 1, want 2\n=== NAME  TestA\n    a_test.go:9: left open\n    --- FAIL: TestA/one (0.1s)\n--- FAIL: TestA (0.2s)\n@@ end file auto 1 1.0 2.0",
			0, 0, 2, []string{"file: TestA\n\ta_test.go:9: left open", "file: TestA/one\n\ta_test.go:1: got 1, want 2"},
		},
		"ended with an error and no test that failed": {
			"@@ begin file auto\n--- PASS: TestA (0.1s)\n@@ end file auto 143 1.0 2.0", 1, 0, 1, []string{"file: ended with 143"},
		},
		"not ended": {"@@ begin file auto\n--- PASS: TestA (0.1s)", 0, 0, 1, []string{"a suite did not end"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := parse(strings.Split(c.console, "\n"))
			if len(runs) != 1 {
				t.Fatalf("%d runs", len(runs))
			}
			if r := runs[0]; r.passed != c.passed || r.skipped != c.skipped || r.failed != c.failed || !slices.Equal(r.failures, c.failures) {
				t.Errorf("got %+v, want %+v", r, c)
			}
		})
	}
}

// emulator stands for qemu: a script that says what a kernel would.
func emulator(t *testing.T, says string) packages {
	t.Helper()
	folder := t.TempDir()
	for path, mode := range map[string]os.FileMode{
		"boot/vmlinuz-1": 0o644, "lib/modules/1/dummy.ko": 0o644, "lib/modules/1/veth.ko": 0o644, "bin/busybox": 0o755,
	} {
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(folder, "qemu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+says), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	before := machine["amd64"]
	t.Cleanup(func() { machine["amd64"] = before })
	fake := before
	fake.program = script
	machine["amd64"] = fake
	return packages{version: "1", folders: []string{folder}, busybox: folder}
}

// A machine that hangs or panics is one row that fails, with the end of its console.
func TestMachineThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		says, want string
		line       int // the first of the last 40 of the console
	}{
		"hangs":       {"for i in $(seq 100); do echo line $i; done; exec sleep 60", "not at its end after 1s", 62},
		"panics":      {"for i in $(seq 100); do echo line $i; done; echo '[ 1.0] Kernel panic - not syncing'; exit 0", "Kernel panic - not syncing", 63},
		"powers down": {"for i in $(seq 100); do echo line $i; done", "did not come to its end", 62},
	} {
		t.Run(name, func(t *testing.T) {
			p := emulator(t, c.says)
			o := options{cache: t.TempDir(), limit: time.Second, policies: "auto"}
			k := kernel{name: "1", arch: "amd64"}
			r := test(t.Context(), o, k, p, t.TempDir())
			if r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Fatalf("got %v, want %q", r.err, c.want)
			}
			var out bytes.Buffer
			good := row{kernel: kernel{name: "2", arch: "amd64"}, runs: []result{{policy: "auto", passed: 3}}}
			if err := report(&out, []row{r, good}); err == nil || err.Error() != "1 of 2 kernels failed" {
				t.Errorf("got %v", err)
			}
			if len(r.console) != 40 || !strings.Contains(out.String(), "the end of its console:\n"+fmt.Sprintf("line %d\n", c.line)) {
				t.Errorf("%d lines of the console in\n%s", len(r.console), out.String())
			}
		})
	}
}
