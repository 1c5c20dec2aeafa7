//go:build amd64

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// rate is how many real events happen in a second.
const rate = 10_000

// BenchmarkEvents prints what the exporter uses at 10,000 events a second:
// opens of a watched file, each with two paths.
func BenchmarkEvents(b *testing.B) {
	testkit.RequireBPF(b)
	b.ReportMetric(0, "ns/op")
	dir := b.TempDir()
	watched, config := filepath.Join(dir, "watched"), filepath.Join(dir, "config.yml")
	rules := fmt.Sprintf("file_access:\n  defaults: false\n  rules:\n  - path: %s\n    read: info\n    write: warning\n", watched)
	for path, text := range map[string]string{watched: "x", config: rules} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	path, err := unix.BytePtrFromString(watched)
	if err != nil {
		b.Fatal(err)
	}
	binary := build(b)
	fmt.Printf("\n%-32s %10s %12s\n", "at 10,000 events/s", "of a core", "resident MiB")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"rankings alone", nil},
		{"with a file output", []string{"--events.output=file:" + filepath.Join(dir, "events.json"), "--events.file-backups=2"}},
	} {
		// The default budget would drop some of what one CPU makes.
		e := startExporter(b, binary, append(c.args, "--config.file="+config, "--api.listen-address=", "--ebpf.max-events-per-second=20000")...)
		time.Sleep(5 * time.Second) // the first run of the collectors is over
		before, begin := e.cpu(b), time.Now()
		for n := 0; time.Since(begin) < idleTime; time.Sleep(time.Millisecond) {
			for ; float64(n) < rate*time.Since(begin).Seconds(); n++ {
				if e := openClose(path); e != 0 {
					b.Fatal(e)
				}
			}
		}
		used := (e.cpu(b) - before).Seconds() / time.Since(begin).Seconds()
		fmt.Printf("%-32s %8.2f %% %12.1f   limit 3 %%\n", c.name, 100*used, float64(e.resident(b))/(1<<20))
		e.stop(b)
	}
}
