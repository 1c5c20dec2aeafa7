// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Section is one chapter of docs/metrics.md.
type Section struct {
	Title   string
	Text    string
	Metrics []*Metric
}

// WriteMarkdown writes the sections as Markdown, one table each, in the order
// of the tables.
func WriteMarkdown(w io.Writer, sections []Section) error {
	var b bytes.Buffer
	for i, s := range sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "## %s\n\n", s.Title)
		if s.Text != "" {
			fmt.Fprintf(&b, "%s\n\n", s.Text)
		}
		b.WriteString("| metric | type | labels | help |\n|---|---|---|---|\n")
		for _, m := range s.Metrics {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, labelsCell(m), cell(m.Help))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func labelsCell(m *Metric) string {
	if len(m.Labels) == 0 {
		return "none"
	}
	parts := make([]string, len(m.Labels))
	for i, l := range m.Labels {
		switch {
		case l.Values != nil:
			parts[i] = fmt.Sprintf("`%s`: %s", l.Name, cell(strings.Join(l.Values, ", ")))
		case l.Help != "":
			parts[i] = fmt.Sprintf("`%s` (%s)", l.Name, cell(l.Help))
		default:
			parts[i] = fmt.Sprintf("`%s`", l.Name)
		}
	}
	return strings.Join(parts, "; ")
}

// cell makes a text fit into one cell of a Markdown table.
func cell(s string) string {
	return strings.NewReplacer("\n", " ", "|", `\|`, "<", "&lt;", ">", "&gt;").Replace(s)
}
