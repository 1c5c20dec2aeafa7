// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the dashboards")

// TestFiles: the files are what the code makes. That each query returns data
// is seen in the end-to-end test of package prometheus.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, d := range Dashboards() {
		got, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(d.File, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(d.File)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the code; run make dashboards", d.File)
		}
		titles := map[string]bool{}
		for _, p := range d.Panels {
			if titles[p.Title] || len(p.Queries) == 0 {
				t.Errorf("%s: panel %q comes twice or asks nothing", d.Title, p.Title)
			}
			titles[p.Title] = true
		}
	}
}
