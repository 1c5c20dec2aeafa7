// SPDX-License-Identifier: Apache-2.0

package verified

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func example() *Table {
	return &Table{
		Columns: []string{"5.10 amd64", "6.1 amd64"},
		Numbers: map[string]Numbers{
			"5.10 amd64": {{"file", "on_open"}: 1000, MapMemory: 500, LoadTime: 10},
			"6.1 amd64":  {{"file", "on_open"}: 800, {"file", "on_exit"}: 90},
		},
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	page := example().Page()
	parsed, err := Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if again := parsed.Page(); string(again) != string(page) {
		t.Errorf("%s\nread and written again:\n%s", page, again)
	}
	const want = "| file | on_exit | - | 90 |\n| file | on_open | 1000 | 800 |\n"
	if !strings.HasSuffix(string(page), want) {
		t.Errorf("%s\nwant at its end:\n%s", page, want)
	}
	for _, bad := range []string{"| probe |\n", "| probe | program | x |\n| a | b |\n", "| probe | program | x |\n| a | b | c |\n"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	open, exit := Row{"file", "on_open"}, Row{"file", "on_exit"}
	for name, c := range map[string]struct {
		numbers Numbers
		want    []string
	}{
		"the same":                 {Numbers{open: 1000, MapMemory: 500, LoadTime: 10}, nil},
		"ten per cent":             {Numbers{open: 1100, MapMemory: 550}, nil},
		"slower":                   {Numbers{LoadTime: 100}, nil},
		"more":                     {Numbers{open: 1101, MapMemory: 551}, []string{"all maps, KiB: 551, was 500", "file on_open: 1101, was 1000"}},
		"less":                     {Numbers{open: 1}, nil},
		"loads here for once":      {Numbers{exit: 90}, nil},
		"a program nobody knows":   {Numbers{{"file", "on_new"}: 1}, []string{"file on_new: not in the table"}},
		"one that loads no longer": {Numbers{}, nil},
	} {
		if got := example().Compare("5.10 amd64", c.numbers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	grown := Numbers{{"file", "on_open"}: 2000, LoadTime: 99}
	for changelog, allowed := range map[string]bool{
		"# Changelog\n\n## Unreleased\n\n- nothing\n\n## 1.0.0\n\n- on_open reads more\n": false,
		"# Changelog\n\n## Unreleased\n\n- on_open reads more\n\n## 1.0.0\n\n- nothing\n": true,
	} {
		table := example()
		err := table.Update("5.10 amd64", grown, []byte(changelog))
		if (err == nil) != allowed {
			t.Errorf("%q: %v", changelog, err)
		}
		if changed := maps.Equal(table.Numbers["5.10 amd64"], grown); changed != allowed {
			t.Errorf("%q: the table has changed: %t", changelog, changed)
		}
	}
	table := example()
	for _, column := range []string{"6.12 arm64", "newest amd64", "6.12 amd64", "6.18 amd64 host"} {
		if err := table.Update(column, Numbers{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"5.10 amd64", "6.1 amd64", "6.12 amd64", "6.18 amd64 host", "newest amd64", "6.12 arm64"}
	if !slices.Equal(table.Columns, want) {
		t.Errorf("%q, want %q", table.Columns, want)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	said := "=== RUN TestX" + Say(Row{"file", "on_open"}, 7) + Say(MapMemory, 12) + "@@ measured x\n"
	want := Numbers{{"file", "on_open"}: 7, MapMemory: 12}
	if got := Read(strings.Split(said, "\n")); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
