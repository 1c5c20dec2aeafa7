//go:build amd64

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// idleTime is how long the exporter's own use of the CPU is watched.
const idleTime = 15 * time.Second

// exporter is the real program with all probes attached.
type exporter struct {
	cmd *exec.Cmd
}

func build(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "security-exporter")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "security-exporter/cmd/security-exporter")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// startExporter returns when the probes are attached: the last one says so.
// With more arguments only some of them may be.
func startExporter(b *testing.B, binary string, args ...string) *exporter {
	b.Helper()
	cmd := exec.Command(binary, append([]string{"--ebpf.enabled", "--web.listen-address=127.0.0.1:0"}, args...)...)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	// From another thread than the benchmark's, whose CPU and priority it would inherit.
	started := make(chan error)
	go func() { started <- cmd.Start() }()
	if err := <-started; err != nil {
		b.Fatal(err)
	}
	var log strings.Builder
	attached := make(chan bool, 1)
	go func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "msg=Probe ") {
				select {
				case attached <- true:
				default:
				}
			}
		}
		close(attached)
	}()
	if !<-attached {
		b.Fatalf("the exporter ended\n%s", log.String())
	}
	e := &exporter{cmd}
	e.calmDown(b)
	return e
}

// calmDown waits until what the exporter does once, at its start, is done: the
// first look at the host's posture takes longer than the probes.
func (e *exporter) calmDown(b *testing.B) {
	b.Helper()
	const (
		interval = 500 * time.Millisecond
		idle     = 5 * time.Millisecond
	)
	before := e.cpu(b)
	for range 40 {
		time.Sleep(interval)
		now := e.cpu(b)
		if now-before <= idle {
			return
		}
		before = now
	}
	b.Logf("the exporter is still busy after %s", 40*interval)
}

func (e *exporter) stop(b *testing.B) {
	b.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if err := e.cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

var memlock = regexp.MustCompile(`memlock:\s+(\d+)`)
var mapID = regexp.MustCompile(`map_id:\s+(\d+)`)

// mapMemory sums the memory of the BPF maps that the exporter has open.
func (e *exporter) mapMemory(b *testing.B) (bytes uint64) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", e.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		id := mapID.FindSubmatch(text)
		size := memlock.FindSubmatch(text)
		if err != nil || id == nil || size == nil || seen[string(id[1])] {
			continue
		}
		seen[string(id[1])] = true
		n, err := strconv.ParseUint(string(size[1]), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		bytes += n
	}
	return bytes
}

// resident is the exporter's resident memory in bytes.
func (e *exporter) resident(b *testing.B) uint64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", e.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

// cpu is the time that all threads of the exporter have run.
func (e *exporter) cpu(b *testing.B) (total time.Duration) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", e.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(n)
	}
	return total
}

// BenchmarkAtRest prints what the exporter uses while nobody scrapes it.
func BenchmarkAtRest(b *testing.B) {
	testkit.RequireBPF(b)
	b.ReportMetric(0, "ns/op")
	e := startExporter(b, build(b))
	defer e.stop(b)
	time.Sleep(2 * time.Second)
	before := e.cpu(b)
	time.Sleep(idleTime)
	used := e.cpu(b) - before
	const mib = 1 << 20
	fmt.Printf("\n%-32s %10.1f MiB   limit 32\n", "resident memory at rest", float64(e.resident(b))/mib)
	fmt.Printf("%-32s %10.1f MiB   limit 16\n", "BPF maps", float64(e.mapMemory(b))/mib)
	fmt.Printf("%-32s %10.3f %%     limit 0.2\n", "of one CPU at rest", 100*used.Seconds()/idleTime.Seconds())
}
