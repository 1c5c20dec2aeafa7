// SPDX-License-Identifier: Apache-2.0

// Package costs measures what each kind of hook costs a call, against the same
// hook with a program that does nothing. It is made for the machines that
// tools/testkernels starts, whose kernels have all kinds, and runs on any host.
package costs

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/file"
	"security-exporter/internal/sensor/probes/network"
	"security-exporter/internal/sensor/probes/privilege"
	"security-exporter/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, nil) }

// workload is a call, or a few, that some parts of a probe look at.
type workload struct {
	name  string
	spec  func() *probe.Spec
	parts []string
	// prepare returns one iteration, which calls the kernel and nothing else.
	prepare func(t *testing.T) func() error
}

func workloads() []workload {
	return []workload{
		{"open and close an unwatched file", func() *probe.Spec {
			return file.New(file.NewRules([]config.FileRule{{Path: "/etc/shadow", Read: config.SeverityCritical, Write: config.SeverityCritical}}))
		}, []string{"identity", "opens"}, openings},
		{"setuid", privilege.New, []string{"calls"}, setuids},
		{"send and receive a datagram", network.New, []string{"udp"}, datagrams},
	}
}

func openings(t *testing.T) func() error {
	path := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

// setuids sets the uid that the thread has.
func setuids(*testing.T) func() error {
	return func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETUID, uintptr(unix.Geteuid()), 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
}

func datagrams(t *testing.T) func() error {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	raw, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	fd, buffer := int(raw.Fd()), make([]byte, 1)
	to := &unix.SockaddrInet4{Port: socket.LocalAddr().(*net.UDPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	return func() error {
		if err := unix.Sendto(fd, buffer, 0, to); err != nil {
			return err
		}
		_, _, err := unix.Recvfrom(fd, buffer, 0)
		return err
	}
}

const (
	rounds  = 3
	samples = 9
	times   = 1000
)

// fastest is the time of one iteration in the fastest sample.
func fastest(t *testing.T, once func() error) time.Duration {
	t.Helper()
	best := time.Duration(1<<63 - 1)
	for range samples {
		begin := time.Now()
		for range times {
			if err := once(); err != nil {
				t.Fatal(err)
			}
		}
		best = min(best, time.Since(begin))
	}
	return best / times
}

// empty leaves every program with nothing to do.
func empty(object *ebpf.CollectionSpec) {
	for name, program := range object.Programs {
		nothing := program.Copy()
		nothing.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(name), asm.Return()}
		if program.Type == ebpf.CGroupSockAddr {
			nothing.Instructions[0] = asm.Mov.Imm(asm.R0, 1).WithSymbol(name) // lets pass
		}
		object.Programs[name] = nothing
	}
}

// Line begins what is said for tools/testkernels.
const line = "@@ cost"

func TestCosts(t *testing.T) {
	testkit.RequireBPF(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	host := probe.Inspect("/proc", "/sys", "/")
	for _, w := range workloads() {
		once := w.prepare(t)
		for _, policy := range []probe.Policy{probe.PolicyFentry, probe.PolicyKprobe, probe.PolicyTracepoint} {
			t.Run(w.name+"/"+string(policy), func(t *testing.T) {
				bare := fastest(t, once)
				hook, nothing := attached(t, host, w, policy, empty, once)
				_, full := attached(t, host, w, policy, nil, once)
				// in turns: a machine's speed changes
				for range rounds - 1 {
					bare = min(bare, fastest(t, once))
					_, again := attached(t, host, w, policy, empty, once)
					nothing = min(nothing, again)
					_, again = attached(t, host, w, policy, nil, once)
					full = min(full, again)
				}
				fmt.Printf("\n%s|%s|%s|%d|%d|%d\n", line, w.name, hook, bare.Nanoseconds(), nothing.Nanoseconds(), full.Nanoseconds())
			})
		}
	}
}

// attached measures with some parts of a probe attached, and says by which hook.
func attached(t *testing.T, host *probe.Host, w workload, policy probe.Policy, edit func(*ebpf.CollectionSpec), once func() error) (string, time.Duration) {
	t.Helper()
	settings := probe.Settings{Policy: policy, Edit: edit, Constants: map[string]any{
		"rings": host.RingBuffers, "stream": host.RingBuffers, "budget_per_window": uint32(100), "sample_rate": uint32(1),
	}}
	spec := *w.spec()
	spec.Parts = slices.DeleteFunc(slices.Clone(spec.Parts), func(p probe.Part) bool { return !slices.Contains(w.parts, p.Name) })
	spec.Compat = nil
	shared := probe.NewShared()
	var took time.Duration
	var status probe.Status
	host.WithTracefs(func() {
		p := probe.Start(t.Context(), &spec, host, shared, settings, slog.New(slog.NewTextHandler(io.Discard, nil)))
		defer func() {
			if err := errors.Join(p.Close(), shared.Close()); err != nil {
				t.Error(err)
			}
		}()
		if status = p.Status(); status.Up() {
			took = fastest(t, once)
		}
	})
	switch {
	case status.Up():
	case status.State == probe.Unsupported, status.State == probe.Denied && !testkit.InMachine():
		t.Skipf("%s: %s", status.State, status.Reason)
	default:
		t.Fatalf("%s: %s", status.State, status.Reason)
	}
	return status.Hook, took
}
