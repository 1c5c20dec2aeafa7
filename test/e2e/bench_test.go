// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// BenchmarkScrapes compares a scrape with one of node_exporter, on 1,000
// processes with 10,000 descriptors and 400 listeners: wall time, CPU of the
// exporter, resident memory.
func BenchmarkScrapes(b *testing.B) {
	node, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		b.Skip("prometheus-node-exporter is missing: install it")
	}
	testkit.Crowd(b, 1000, 400)
	for _, e := range []struct{ name, program string }{{"ours", binary}, {"node", node}} {
		b.Run(e.name, func(b *testing.B) {
			p := launchBench(b, e.program)
			series := warmUp(b, p.url)
			before := cpuNanos(b, p.pid)
			for b.Loop() {
				if _, err := get(p.url); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuNanos(b, p.pid)-before)/float64(b.N)/1e6, "cpu-ms/op")
			b.ReportMetric(residentMiB(b, p.pid), "rss-MiB")
			b.ReportMetric(float64(series), "series")
		})
	}
}

// warmUp scrapes until the first runs are over, and returns the number of
// series.
func warmUp(b *testing.B, url string) int {
	b.Helper()
	page := ""
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		page, _ = get(url)
	}
	n := 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	if n == 0 {
		b.Fatalf("%s has no series", url)
	}
	return n
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(text), err
}

// cpuNanos is the CPU time of a process by the scheduler's own clock.
func cpuNanos(b *testing.B, pid int) (total int64) {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatal("no tasks of the process")
	}
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return total
}

func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// restFor is how long BenchmarkAtRest measures: each collector runs twice at
// least, those with the longest intervals aside.
const restFor = 150 * time.Second

// BenchmarkAtRest measures what the exporter takes of a core when nobody
// scrapes it, on the same crowd: user and system time of the process, by the
// clock of the scheduler, after the first runs.
func BenchmarkAtRest(b *testing.B) {
	testkit.Crowd(b, 1000, 400)
	p := launchBench(b, binary)
	warmUp(b, p.url)
	time.Sleep(10 * time.Second)
	for b.Loop() {
		before := cpuNanos(b, p.pid)
		time.Sleep(restFor)
		b.ReportMetric(float64(cpuNanos(b, p.pid)-before)/float64(restFor)*100, "rest-%")
	}
	b.ReportMetric(residentMiB(b, p.pid), "rss-MiB")
}

type benched struct {
	url string
	pid int
}

// launchBench starts an exporter on a free port; it ends with the benchmark.
func launchBench(b *testing.B, program string) benched {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(program, "--web.listen-address="+addr)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return benched{"http://" + addr + "/metrics", cmd.Process.Pid}
}
