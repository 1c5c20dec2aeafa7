// SPDX-License-Identifier: Apache-2.0

// Command testkernels boots Debian's kernels in qemu, without KVM, and runs the
// tests of the runtime half in each. It prints one table, and fails if a
// package cannot be fetched, a kernel does not come to its end, or a test
// fails. It needs apt, dpkg-deb, xz, qemu-system and Go; not root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

type options struct {
	kernel, arch string
	cache        string
	mirror       string
	jobs         int
	limit        time.Duration
	run          string
	policies     string
	suites       string
	verbose      bool
	update       bool
}

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", "", "the one kernel to test, as in the table")
	flag.StringVar(&o.arch, "arch", "", "the one architecture to test, amd64 or arm64")
	flag.StringVar(&o.cache, "cache", defaultCache(), "folder for packages, indices and consoles")
	flag.StringVar(&o.mirror, "mirror", "", "Debian mirror, that of apt's sources if empty; its security archive is found beside it")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "machines at a time")
	flag.DurationVar(&o.limit, "limit", 45*time.Minute, "time for one machine")
	flag.StringVar(&o.run, "run", "", "tests to run, as for go test")
	flag.StringVar(&o.policies, "policies", strings.Join(policies, ","), "hook policies to test")
	flag.StringVar(&o.suites, "suites", "", "suites to run, comma-separated; empty: all")
	flag.BoolVar(&o.update, "update", false, "write what is measured into docs/verifier.md")
	flag.BoolVar(&o.verbose, "v", false, "print the console of each machine when it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "testkernels:", err)
		os.Exit(1)
	}
}

func defaultCache() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "security-exporter-kernels")
}

func run(ctx context.Context, o options) error {
	chosen := choose(o.kernel, o.arch)
	if len(chosen) == 0 {
		return fmt.Errorf("no kernel %q for %q in the matrix", o.kernel, o.arch)
	}
	binaries := map[string]string{}
	for _, k := range chosen {
		if binaries[k.arch] != "" {
			continue
		}
		folder := filepath.Join(o.cache, "binaries", k.arch)
		if err := build(ctx, folder, k.arch); err != nil {
			return err
		}
		binaries[k.arch] = folder
	}
	rows := make([]row, len(chosen))
	slots := make(chan struct{}, max(1, o.jobs))
	var machines sync.WaitGroup
	for i, k := range chosen {
		packages, err := fetch(ctx, o, k)
		if err != nil {
			rows[i] = row{kernel: k, err: err}
			continue
		}
		slots <- struct{}{} // here, so that they start in this order
		machines.Go(func() {
			defer func() { <-slots }()
			rows[i] = test(ctx, o, k, packages, binaries[k.arch])
			fmt.Fprintf(os.Stderr, "%s %s: %s\n", k.name, k.arch, rows[i].verdict())
		})
	}
	machines.Wait()
	if err := judge(rows, o.update); err != nil {
		return err
	}
	return report(os.Stdout, rows)
}
