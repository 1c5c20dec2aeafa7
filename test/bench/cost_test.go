//go:build amd64

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"security-exporter/internal/config"
	"security-exporter/internal/sensor"
	"security-exporter/internal/testkit"
)

var (
	rounds  = flag.Int("rounds", 12, "how often to attach and detach")
	samples = flag.Int("samples", 5, "samples of each workload in each round")
	against = flag.String("against", "", "another build of the exporter, to measure in turns with this one")
)

// oneConnection is the workload that BenchmarkConnection takes apart.
const oneConnection = "TCP connect, accept, close"

// settle is how long the kernel may take to end the tracepoints' perf events,
// which it does in the background.
const settle = 2500 * time.Millisecond

// workload is a system call or a few, repeated by one pinned thread.
type workload struct {
	name  string
	limit string
	times int
	// prepare makes what a sample needs and returns one iteration, which
	// allocates nothing, and its end.
	prepare func() (once func() unix.Errno, done func(), err error)

	bare, attached, other []float64 // nanoseconds for one iteration
}

// BenchmarkCost prints a table of medians, and the ratio of the fastest tenths. It is no benchmark of Go code: it
// attaches and detaches all probes and measures the kernel in between.
func BenchmarkCost(b *testing.B) {
	testkit.RequireBPF(b)
	b.ReportMetric(0, "ns/op")
	works := workloads(b)
	binary := build(b)
	pin(b)
	for range *rounds {
		measure(b, works, func(w *workload, ns float64) { w.bare = append(w.bare, ns) })
		// Another process: each fork copies the forking one's descriptors.
		beside(b, binary, works, func(w *workload, ns float64) { w.attached = append(w.attached, ns) })
		if *against != "" {
			beside(b, *against, works, func(w *workload, ns float64) { w.other = append(w.other, ns) })
		}
	}
	fmt.Printf("\n%-32s %10s %10s %9s %7s %8s  %s\n", "median of one, ns", "bare", "attached", "added", "ratio", "fastest", "limit")
	row := func(name string, w *workload, attached []float64) {
		before, after := median(w.bare), median(attached)
		fmt.Printf("%-32s %10.1f %10.1f %+9.1f %7.3f %8.3f  %s\n", name, before, after, after-before, after/before,
			fastest(attached)/fastest(w.bare), w.limit)
	}
	for _, w := range works {
		row(w.name, w, w.attached)
		if *against != "" {
			row("  with "+filepath.Base(*against), w, w.other)
		}
	}
}

// beside measures while an exporter runs.
func beside(b *testing.B, binary string, works []*workload, keep func(*workload, float64)) {
	b.Helper()
	e := startExporter(b, binary)
	measure(b, works, keep)
	e.stop(b)
	time.Sleep(settle)
}

// attach starts all probes with the default rules and waits for the end of it.
func attach(b *testing.B) *sensor.Manager {
	b.Helper()
	var errors strings.Builder
	m := sensor.New(options(b, &errors))
	m.Start(context.Background())
	if errors.Len() > 0 {
		b.Log(errors.String())
	}
	return m
}

func options(b *testing.B, log *strings.Builder) sensor.Options {
	b.Helper()
	cfg, err := config.Parse([]string{"--ebpf.enabled"}, config.Known{Probes: sensor.Names()}, os.Stderr)
	if err != nil {
		b.Fatal(err)
	}
	return sensor.Options{
		Enabled: true, Probes: cfg.EBPF.Probes, Rules: cfg.FileRules, SampleRate: 1,
		MaxEventsPerSecond: cfg.EBPF.MaxEventsPerSecond, ProcFS: "/proc", SysFS: "/sys", RootFS: "/",
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError})),
	}
}

// pin keeps the benchmark's thread on one CPU, in front of everything else there,
// and without signals, which would run Go's handler in the child of spawn.
func pin(b *testing.B) {
	b.Helper()
	runtime.LockOSThread() // never unlocked: its mask and CPU are its own
	var one unix.CPUSet
	one.Set(runtime.NumCPU() - 1)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		b.Fatal(err)
	}
	realtime := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, &realtime, 0); err != nil {
		b.Logf("other programs on this CPU will disturb: %v", err)
	}
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		b.Fatal(err)
	}
}

func measure(b *testing.B, works []*workload, keep func(*workload, float64)) {
	b.Helper()
	for range *samples {
		for _, w := range works {
			once, done, err := w.prepare()
			if err != nil {
				b.Fatalf("%s: %v", w.name, err)
			}
			for range w.times / 5 {
				once()
			}
			begin := now()
			for range w.times {
				if e := once(); e != 0 {
					b.Fatalf("%s: %v", w.name, e)
				}
			}
			took := now() - begin
			done()
			keep(w, float64(took)/float64(w.times))
		}
	}
}

func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// fastest is what only a tenth of the samples beat: what a machine whose speed
// changes by the second says least wrongly.
func fastest(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/10]
}

func nothing() {}

func workloads(b *testing.B) []*workload {
	b.Helper()
	// Below /usr, where the class of a program takes the longest way.
	dir, err := os.MkdirTemp("/usr/local", "security-exporter-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	image, plain := filepath.Join(dir, "exit"), filepath.Join(dir, "plain")
	for _, path := range []string{image, plain} {
		if err := os.WriteFile(path, exitImage, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	var address byte = 1
	connection := func() (func() unix.Errno, func(), error) {
		address++ // another one each time: its closed connections linger
		return tcp([4]byte{127, 0, 1, address})
	}
	return []*workload{
		{name: "getppid", limit: "+15 ns", times: 200_000, prepare: func() (func() unix.Errno, func(), error) {
			return func() unix.Errno {
				_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
				return 0
			}, nothing, nil
		}},
		{name: "open, close", limit: "1.20", times: 20_000, prepare: func() (func() unix.Errno, func(), error) {
			path, err := unix.BytePtrFromString(plain)
			return func() unix.Errno { return openClose(path) }, nothing, err
		}},
		{name: "fork, exec, exit", limit: "1.03", times: 300, prepare: func() (func() unix.Errno, func(), error) {
			path, err := unix.BytePtrFromString(image)
			argv, envv := []*byte{path, nil}, []*byte{nil}
			return func() unix.Errno { return run(path, &argv[0], &envv[0]) }, nothing, err
		}},
		{name: oneConnection, limit: "1.05", times: 300, prepare: connection},
		// past the budget of events
		{name: "TCP, 5,000 in a row", limit: "1.05", times: 5000, prepare: connection},
	}
}

func openClose(path *byte) unix.Errno {
	at := unix.AT_FDCWD
	fd, _, e := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), unix.O_RDONLY, 0, 0, 0)
	if e == 0 {
		_, _, e = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return e
}

func run(path *byte, argv, envv **byte) unix.Errno {
	pid := spawn(path, argv, envv)
	if pid < 0 {
		return unix.Errno(-pid)
	}
	var status int32
	_, _, e := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
	if e == 0 && status != 0 {
		e = unix.ENOEXEC
	}
	return e
}

// tcp listens and returns one connection from its beginning to its end.
func tcp(ip [4]byte) (func() unix.Errno, func(), error) {
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Bind(server, &unix.SockaddrInet4{Addr: ip}); err != nil {
		return nil, nil, err
	}
	if err := unix.Listen(server, 16); err != nil {
		return nil, nil, err
	}
	bound, err := unix.Getsockname(server)
	if err != nil {
		return nil, nil, err
	}
	port := bound.(*unix.SockaddrInet4).Port
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port>>8 | port<<8), Addr: ip}
	once := func() unix.Errno {
		client, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if e != 0 {
			return e
		}
		if _, _, e = unix.RawSyscall(unix.SYS_CONNECT, client, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to)); e != 0 {
			return e
		}
		accepted, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(server), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		if e != 0 {
			return e
		}
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, client, 0, 0)
		_, _, e = unix.RawSyscall(unix.SYS_CLOSE, accepted, 0, 0)
		return e
	}
	return once, func() { _ = syscall.Close(server) }, nil
}

// BenchmarkScrape is one gathering of the runtime half, all probes attached.
func BenchmarkScrape(b *testing.B) {
	testkit.RequireBPF(b)
	m := attach(b)
	defer m.Close()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBare runs the workloads alone, beside an exporter that is measured
// in another way.
func BenchmarkBare(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	works := workloads(b)
	pin(b)
	measure(b, works, func(w *workload, ns float64) { w.bare = append(w.bare, ns) })
	for _, w := range works {
		fmt.Printf("%-32s %10.1f ns\n", w.name, median(w.bare))
	}
}

// BenchmarkProbes is BenchmarkCost for each probe alone, to find out which one
// a cost comes from.
func BenchmarkProbes(b *testing.B) {
	testkit.RequireBPF(b)
	b.ReportMetric(0, "ns/op")
	works := workloads(b)
	binary := build(b)
	pin(b)
	names := sensor.Names()
	alone := make([]map[*workload][]float64, len(names))
	for range *rounds {
		measure(b, works, func(w *workload, ns float64) { w.bare = append(w.bare, ns) })
		for i, name := range names {
			if alone[i] == nil {
				alone[i] = map[*workload][]float64{}
			}
			e := startExporter(b, binary, "--ebpf.probes="+name)
			measure(b, works, func(w *workload, ns float64) { alone[i][w] = append(alone[i][w], ns) })
			e.stop(b)
			time.Sleep(settle)
		}
	}
	fmt.Printf("\n%-32s %10s", "added, ns", "bare")
	for _, name := range names {
		fmt.Printf(" %10s", name)
	}
	for _, w := range works {
		fmt.Printf("\n%-32s %10.1f", w.name, median(w.bare))
		for i := range names {
			fmt.Printf(" %+10.1f", median(alone[i][w])-median(w.bare))
		}
	}
	fmt.Println()
}
