// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"errors"
	"strings"
	"testing"
)

func TestWriteMarkdown(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := WriteMarkdown(&b, []Section{
		{Title: "One", Text: "Some text.", Metrics: []*Metric{
			New(Counter, "x_total", "An x|y <z>\nw.", Closed("a", "p", "q|r"), Open("b", "a path"), Open("c", "")),
		}},
		{Title: "Two", Metrics: []*Metric{NewState("s", "A state.")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "## One\n\nSome text.\n\n" +
		"| metric | type | labels | help |\n|---|---|---|---|\n" +
		"| `x_total` | counter | `a`: p, q\\|r; `b` (a path); `c` | An x\\|y &lt;z&gt; w. |\n" +
		"\n## Two\n\n" +
		"| metric | type | labels | help |\n|---|---|---|---|\n" +
		"| `s` | gauge | none | A state. |\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteMarkdownReportsErrors(t *testing.T) {
	t.Parallel()
	if err := WriteMarkdown(brokenWriter{}, []Section{{Title: "One"}}); err == nil {
		t.Error("the error was lost")
	}
}
