// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
