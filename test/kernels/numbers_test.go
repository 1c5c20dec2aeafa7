// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
	"security-exporter/internal/testkit/verified"
)

const (
	page      = "../../docs/verifier.md"
	changelog = "../../CHANGELOG.md"

	// hostCPUs are those of the host whose maps are in the table.
	hostCPUs = 2
)

var update = flag.Bool("update", false, "write what is measured into docs/verifier.md")

var processed = regexp.MustCompile(`processed (\d+) insns`)

// countInstructions notes what the verifier said of a rung's programs.
func countInstructions(t *testing.T, numbers verified.Numbers, p *probe.Probe, rung probe.Rung) {
	t.Helper()
	for _, name := range slices.Concat(rung.Programs, rung.Optional) {
		program := p.Program(name)
		if program == nil {
			continue // optional
		}
		said := processed.FindAllStringSubmatch(program.VerifierLog, -1)
		if said == nil {
			t.Errorf("%s: the verifier says nothing: %q", name, program.VerifierLog)
			continue
		}
		n, err := strconv.Atoi(said[len(said)-1][1])
		if err != nil {
			t.Fatal(err)
		}
		row := verified.Row{Probe: p.Spec().Name(), Name: name}
		numbers[row] = max(numbers[row], n)
	}
}

// TestResources measures how long the runtime half takes to start, and the
// memory of its maps.
func TestResources(t *testing.T) {
	testkit.RequireBPF(t)
	m := sensor.New(sensor.Options{
		Enabled: true, Probes: slices.Clone(abi.Probes[:]), Rules: config.DefaultFileRules(), SampleRate: 1, MaxEventsPerSecond: 1000,
		ProcFS: "/proc", SysFS: "/sys", RootFS: "/", Logger: slog.New(slog.DiscardHandler),
	})
	start := time.Now()
	m.Start(t.Context())
	took := time.Since(start)
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	memory := mapMemory(t)
	if memory == 0 {
		t.Fatal("the kernel tells no map's memory")
	}
	numbers := verified.Numbers{verified.MapMemory: memory >> 10, verified.LoadTime: int(took.Milliseconds())}
	if !testkit.InMachine() && runtime.NumCPU() != hostCPUs {
		delete(numbers, verified.MapMemory) // counters have a place for each CPU
	}
	record(t, numbers)
}

// mapMemory is the memory of all maps that this process has open.
func mapMemory(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	seen, sum := map[string]bool{}, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // of the glob itself
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		id := fields["map_id"]
		if id == "" || seen[id] {
			continue
		}
		seen[id] = true
		n, err := strconv.Atoi(fields["memlock"])
		if err != nil {
			t.Fatalf("map %s: %v", id, err)
		}
		sum += n
	}
	return sum
}

// record gives the numbers to the tool that started the machine. On a host
// that has a column of its own they are compared with the table.
func record(t *testing.T, numbers verified.Numbers) {
	t.Helper()
	if testkit.InMachine() {
		for row, n := range numbers {
			fmt.Print(verified.Say(row, n))
		}
		return
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	table, err := verified.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	column := hostColumn(t)
	if !*update {
		if table.Numbers[column] == nil {
			t.Logf("docs/verifier.md has no column %q to compare with", column)
			return
		}
		for _, wrong := range table.Compare(column, numbers) {
			t.Errorf("%s; go test ./test/kernels -update, and say why in CHANGELOG.md", wrong)
		}
		return
	}
	changes, err := os.ReadFile(changelog)
	if err != nil {
		t.Fatal(err)
	}
	all := verified.Numbers{}
	for row, n := range table.Numbers[column] {
		// Of what other tests measure the table keeps what it has.
		if isProgram(row) != isProgram(anyOf(numbers)) {
			all[row] = n
		}
	}
	for row, n := range numbers {
		all[row] = n
	}
	if err := table.Update(column, all, changes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, table.Page(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func isProgram(row verified.Row) bool { return row.Probe != verified.MapMemory.Probe }

func anyOf(numbers verified.Numbers) verified.Row {
	for row := range numbers {
		return row
	}
	return verified.Row{}
}

var series = regexp.MustCompile(`^\d+\.\d+`)

// hostColumn is the heading for the kernel that runs.
func hostColumn(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return series.FindString(unix.ByteSliceToString(name.Release[:])) + " " + runtime.GOARCH + " host"
}
