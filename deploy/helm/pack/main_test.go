// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

const (
	source = "../security-exporter"
	epoch  = "1700000000"
)

// TestPack: the archive is the chart with that version, and the same each time.
func TestPack(t *testing.T) {
	t.Parallel()
	var archives [2][]byte
	var path string
	for i := range archives {
		dir := t.TempDir()
		if err := run([]string{source, "1.2.3", dir}, epoch); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, "security-exporter-1.2.3.tgz")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		archives[i] = data
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the second run gives other bytes")
	}
	got, err := loader.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Metadata.Version != "1.2.3" || got.Metadata.AppVersion != "1.2.3" || got.ModTime.Unix() != 1700000000 {
		t.Errorf("version %s, of the program %s, of %v", got.Metadata.Version, got.Metadata.AppVersion, got.ModTime)
	}
	want, err := loader.LoadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range got.Raw {
		files[f.Name] = f.Data
	}
	for _, f := range want.Raw {
		if f.Name != "Chart.yaml" && !bytes.Equal(files[f.Name], f.Data) {
			t.Errorf("%s is missing or differs", f.Name)
		}
	}
	if len(got.Raw) != len(want.Raw) {
		t.Errorf("files %q", slices.Sorted(maps.Keys(files)))
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args  []string
		epoch string
		want  string
	}{
		{[]string{source, "1.2.3"}, epoch, "want CHART VERSION FOLDER, got 2 arguments"},
		{[]string{source, "1.2.3", dir}, "now", "SOURCE_DATE_EPOCH=now: must be seconds since 1970"},
		{[]string{dir, "1.2.3", dir}, epoch, dir + ": Chart.yaml file is missing"},
		{[]string{source, "latest", dir}, epoch, `chart validation: validation: chart.metadata.version "latest" is invalid`},
	} {
		if err := run(c.args, c.epoch); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) != 0 {
		t.Errorf("made all the same: %q", found)
	}
}
