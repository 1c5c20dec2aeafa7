// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// modulePath is a module that the machines of tools/testkernels have: one
// that needs no device and makes none with this parameter.
const (
	modulePath      = "/lib/dummy.ko"
	moduleParameter = "numdummies=0"
)

// loadModules loads and unloads the module n times from memory and n times
// from its file. Each time it tries to load it once more in both ways, which
// fails, and an image that is cut off.
func loadModules(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	image, err := os.ReadFile(modulePath)
	if err != nil {
		return "", err
	}
	file, err := os.Open(modulePath)
	if err != nil {
		return "", err
	}
	defer file.Close()
	fromMemory := func() error { return unix.InitModule(image, moduleParameter) }
	fromFile := func() error { return unix.FinitModule(int(file.Fd()), moduleParameter, 0) }
	for i := range 2 * n {
		load := fromMemory
		if i%2 == 1 {
			load = fromFile
		}
		if err := load(); err != nil {
			return "", fmt.Errorf("load: %w", err)
		}
		if err := errors.Join(expect(unix.EEXIST, fromMemory()), expect(unix.EEXIST, fromFile())); err != nil {
			return "", err
		}
		if err := unix.DeleteModule("dummy", unix.O_NONBLOCK); err != nil {
			return "", fmt.Errorf("unload: %w", err)
		}
		if err := expect(unix.ENOEXEC, unix.InitModule(image[:len(image)/2], "")); err != nil {
			return "", err
		}
	}
	return "", nil
}

func expect(want, got error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("got %v, want %w", got, want)
	}
	return nil
}

// A real module, by each call and each result.
func TestModules(t *testing.T) {
	if _, err := os.Stat(modulePath); err != nil {
		t.Skip("needs a machine with the module dummy")
	}
	const n = testkit.Few
	load, file, unload := int(abi.ModuleLoad), int(abi.ModuleLoadFile), int(abi.ModuleUnload)
	eachRung(t, func(t *testing.T, p *probe.Probe, cgroup *testkit.Cgroup) {
		w := cgroup.Start(t, "kernel")
		watch := testkit.NewWatch(t, p, "kernel_module_total", "kernel_module_failures_total")
		w.Do("load", strconv.Itoa(n))
		watch.Expect(t, map[string]map[int]int64{
			"kernel_module_total":          {load: n, file: n, unload: 2 * n},
			"kernel_module_failures_total": {load: 4 * n, file: 2 * n},
		})
	})
}
