// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"security-exporter/internal/posture"
	"security-exporter/internal/sensor"
)

// The recipe "Add a probe" lists the files that every probe there is has.
func TestProbeRecipe(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, recipe, found := strings.Cut(string(page), "## Add a probe\n")
	recipe, _, _ = strings.Cut(recipe, "\n## ")
	if !found {
		t.Fatal("CONTRIBUTING.md has no section 'Add a probe'")
	}
	steps := regexp.MustCompile("(?m)^[0-9]+\\. `([^`]+)`").FindAllStringSubmatch(recipe, -1)
	if len(steps) != 5 {
		t.Fatalf("the recipe has %d steps, want 5", len(steps))
	}
	perProbe := 0
	for _, step := range steps {
		if strings.Contains(step[1], "NAME") {
			perProbe++
		}
		for _, name := range sensor.Names() {
			path := filepath.Join("..", strings.ReplaceAll(step[1], "NAME", name))
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the recipe names %s: %v", step[1], err)
			}
		}
	}
	if perProbe != 3 {
		t.Errorf("a probe is %d files of its own, want 3", perProbe)
	}
	all, err := os.ReadFile("../internal/sensor/all.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sensor.Names() {
		if strings.Count(string(all), name+".New(") != 1 {
			t.Errorf("all.go does not have just one line for %s", name)
		}
	}
}

// Every collector has what the recipe "Add a collector" names, three hosts
// among it, and a row in posture.md.
func TestCollectorRecipe(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("posture.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("../internal/posture/all.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(all), "Collector(),\n"); n != len(posture.Names()) {
		t.Errorf("all.go has %d lines for %d collectors", n, len(posture.Names()))
	}
	for _, name := range posture.Names() {
		hosts, err := filepath.Glob("../internal/posture/testdata/" + name + "/*/rootfs")
		if err != nil || len(hosts) < 3 && !withoutFiles[name] {
			t.Errorf("%s has %d hosts in testdata, want 3", name, len(hosts))
		}
		if _, err := os.Stat("../internal/posture/" + name + ".go"); err != nil {
			t.Errorf("%s has no file of its name: %v", name, err)
		}
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("posture.md has no row for %s", name)
		}
	}
}

// withoutFiles are the collectors that read no files.
var withoutFiles = map[string]bool{"time": true}
