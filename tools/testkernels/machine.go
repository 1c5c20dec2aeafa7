// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"security-exporter/internal/testkit/verified"
)

// row is what came of one kernel.
type row struct {
	kernel  kernel
	version string
	runs    []result
	err     error
	console []string // the last lines, if err is set
	numbers verified.Numbers
	costs   []string // lines of test/kernels/costs
	grown   []string // of the numbers, against the table
	seconds int
}

// result is what came of the suites under one policy.
type result struct {
	policy                  string
	rungs                   string
	passed, skipped, failed int
	failures                []string
	seconds                 float64
}

func (r row) verdict() string {
	switch failed := r.failed(); {
	case r.err != nil:
		return "failed: " + r.err.Error()
	case failed > 0:
		return fmt.Sprintf("%d cases failed", failed)
	default:
		return "passed"
	}
}

func (r row) failed() int {
	n := 0
	for _, run := range r.runs {
		n += run.failed
	}
	return n
}

// machine is how qemu emulates an architecture. With more than one CPU,
// version 7.2 makes current kernels fail.
//
// Of the kernel, some parameters save what is dear to emulate: each timer that
// is set anew wakes a second thread of qemu (nohz, highres), and with tables of
// its own for user space the kernel loses qemu's translations of addresses at
// each system call (kpti).
var machine = map[string]struct {
	program    string
	arguments  []string
	parameters string
}{
	"amd64": {"qemu-system-x86_64", []string{"-cpu", "qemu64,-cx16"}, "console=ttyS0 nohz=off highres=off"},
	"arm64": {"qemu-system-aarch64", []string{"-machine", "virt", "-cpu", "cortex-a72"}, "console=ttyAMA0 nohz=off highres=off kpti=off"},
}

// test boots a kernel, once for each of its sessions, and reads what its tests say.
func test(ctx context.Context, o options, k kernel, p packages, binaries string) row {
	r := row{kernel: k, version: p.version}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	var all []string
	for _, s := range sessions(o, k) {
		console, err := boot(ctx, o, k, s, p, binaries)
		lines := strings.Split(strings.ReplaceAll(string(console), "\r", ""), "\n")
		all = append(all, lines...)
		if r.err = errors.Join(err, complete(lines)); r.err != nil {
			r.console = lines[max(0, len(lines)-40):]
			break
		}
	}
	r.seconds = int(time.Since(start).Seconds())
	r.runs, r.numbers = parse(all), verified.Read(all)
	for _, line := range all {
		if cost, ok := strings.CutPrefix(line, "@@ cost|"); ok {
			r.costs = append(r.costs, cost)
		}
	}
	return r
}

// complete says what a console lacks that ran to its end.
func complete(lines []string) error {
	var errs []error
	for _, line := range lines {
		if strings.Contains(line, "BUG: ") || strings.Contains(line, "WARNING: CPU") || strings.Contains(line, "Kernel panic") {
			errs = append(errs, errors.New(strings.TrimSpace(line)))
		}
	}
	if !slices.Contains(lines, "@@ done") {
		errs = append(errs, errors.New("the machine did not come to its end"))
	}
	return errors.Join(errs...)
}

func boot(ctx context.Context, o options, k kernel, s session, p packages, binaries string) ([]byte, error) {
	vmlinuz, err := kernelImage(p)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(o.cache, "machines", k.name+"-"+k.arch)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	initramfs := filepath.Join(folder, "initramfs")
	if err := image(ctx, initramfs, p, binaries, k.arch, s.suites()); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	m := machine[k.arch]
	line := fmt.Sprintf("%s loglevel=5 nowatchdog panic=-1 oops=panic lsm=lockdown,yama,bpf %s runs=%s", m.parameters, s.parameter, strings.Join(s.runs, ","))
	arguments := append(slices.Clone(m.arguments), "-smp", "1", "-m", "2048", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
		"-kernel", vmlinuz, "-initrd", initramfs, "-append", line)
	console, err := os.Create(filepath.Join(folder, "console"+s.parameter))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	var out bytes.Buffer
	c := exec.CommandContext(ctx, m.program, arguments...)
	both := io.MultiWriter(&out, console)
	c.Stdout, c.Stderr = both, both
	err = c.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not at its end after %s", o.limit)
	}
	if o.verbose {
		_, _ = os.Stderr.Write(out.Bytes())
	}
	return out.Bytes(), err
}

// parse reads the results of the suites from the console, by policy.
func parse(lines []string) []result {
	var out []result
	verdicts, said := map[string]string{}, map[string][]string{}
	test := ""
	current := func(policy string) *result {
		for i := range out {
			if out[i].policy == policy {
				return &out[i]
			}
		}
		out = append(out, result{policy: policy})
		return &out[len(out)-1]
	}
	open := ""
	for _, line := range lines {
		words := strings.Fields(line)
		mark := len(words) >= 3 && words[0] == "@@"
		switch {
		case mark && words[1] == "rungs":
			current(words[2]).rungs = strings.Join(words[3:], " ")
		case mark && words[1] == "begin":
			clear(verdicts)
			clear(said)
			open = words[3]
			_ = current(open)
		case mark && words[1] == "end" && len(words) == 7:
			current(words[3]).add(words[2], words[4], verdicts, said)
			before, _ := strconv.ParseFloat(words[5], 64)
			after, _ := strconv.ParseFloat(words[6], 64)
			current(words[3]).seconds += after - before
			open = ""
		case len(words) >= 3 && words[0] == "===":
			test = words[2]
		case len(words) >= 3 && words[0] == "---":
			verdicts[words[2]] = words[1]
		default:
			said[test] = append(said[test], strings.TrimSpace(line))
		}
	}
	if open != "" {
		r := current(open)
		r.failed++
		r.failures = append(r.failures, "a suite did not end")
	}
	return out
}

// add counts the cases of a suite: the tests that have no tests within. Of
// those that failed it keeps the last lines that they said.
func (r *result) add(suite, code string, verdicts map[string]string, said map[string][]string) {
	const most = 10
	failed := r.failed
	for name, verdict := range verdicts {
		within := false
		for other := range verdicts {
			within = within || strings.HasPrefix(other, name+"/")
		}
		switch {
		case within && verdict != "FAIL:":
		case verdict == "PASS:":
			r.passed++
		case verdict == "SKIP:":
			r.skipped++
		default:
			r.failed++
			lines := said[name]
			failure := append([]string{suite + ": " + name}, lines[max(0, len(lines)-most):]...)
			r.failures = append(r.failures, strings.Join(failure, "\n\t"))
		}
	}
	if code != "0" && failed == r.failed {
		r.failed++
		r.failures = append(r.failures, suite+": ended with "+code)
	}
	slices.Sort(r.failures)
}

// reportCosts prints what hooks cost, in nanoseconds and against the same hook
// with an empty program.
func reportCosts(w io.Writer, r row) {
	for i, cost := range r.costs {
		cells := strings.Split(cost, "|")
		if len(cells) != 5 {
			continue
		}
		if i == 0 {
			fmt.Fprintf(w, "\n%s %s\n%-34s %-48s %8s %8s %8s %6s\n", r.kernel.name, r.kernel.arch, "costs, ns", "hook", "bare", "empty", "full", "ratio")
		}
		empty, _ := strconv.ParseFloat(cells[3], 64)
		full, _ := strconv.ParseFloat(cells[4], 64)
		fmt.Fprintf(w, "%-34s %-48s %8s %8s %8s %6.2f\n", cells[0], cells[1], cells[2], cells[3], cells[4], full/empty)
	}
}

// report prints the table and then what failed.
func report(out io.Writer, rows []row) error {
	w := bufio.NewWriter(out)
	failed := 0
	fmt.Fprintf(w, "%-28s %-6s %-11s %6s %4s %6s %7s  %s\n", "kernel", "arch", "policy", "passed", "n/a", "failed", "seconds", "rungs")
	for _, r := range rows {
		name := r.kernel.name
		if r.version != "" {
			name += " (" + r.version + ")"
		}
		for _, run := range r.runs {
			fmt.Fprintf(w, "%-28s %-6s %-11s %6d %4d %6d %7.0f  %s\n", name, r.kernel.arch, run.policy, run.passed, run.skipped, run.failed, run.seconds, run.rungs)
		}
		if r.err != nil {
			fmt.Fprintf(w, "%-28s %-6s did not end: %s\n", name, r.kernel.arch, strings.ReplaceAll(r.err.Error(), "\n", "; "))
		}
		if r.err != nil || r.failed() > 0 || len(r.grown) > 0 {
			failed++
		}
	}
	for _, r := range rows {
		reportCosts(w, r)
		for _, run := range r.runs {
			for _, name := range run.failures {
				fmt.Fprintf(w, "failed: %s %s %s: %s\n", r.kernel.name, r.kernel.arch, run.policy, name)
			}
		}
		for _, text := range r.grown {
			fmt.Fprintf(w, "%s %s, docs/verifier.md: %s\n", r.kernel.name, r.kernel.arch, text)
		}
		if r.err != nil && len(r.console) > 0 {
			fmt.Fprintf(w, "\n%s %s, the end of its console:\n%s\n", r.kernel.name, r.kernel.arch, strings.Join(r.console, "\n"))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d kernels failed", failed, len(rows))
	}
	return nil
}
