// SPDX-License-Identifier: Apache-2.0

// Package verified keeps docs/verifier.md: how many instructions the verifier
// goes through for each program, kernel by kernel, and what the programs cost
// when they are loaded. It says what has grown.
package verified

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Row is a line of the table: a program of a probe, or one of the two below.
type Row struct{ Probe, Name string }

// The rows that are no programs. Times are not compared.
var (
	MapMemory = Row{"all", "maps, KiB"}
	LoadTime  = Row{"all", "start, ms"}
)

// Numbers are those of one kernel.
type Numbers map[Row]int

// Table has the numbers of each kernel, by the heading of its column.
type Table struct {
	Columns []string
	Numbers map[string]Numbers
}

const head = `<!-- Written by the commands below; do not edit. -->

# What the verifier goes through

Instructions that the verifier goes through for each program with every feature on, of the 1,000,000 it allows; memory
of all maps together, as the kernel tells it (before 6.4 an estimate), with two CPUs on the host and one in qemu; and
how long the exporter takes from its start until all probes are attached, which depends on the machine: qemu emulates
those of Debian's kernels. A dash: the kernel has not the hook, or refuses it.

` + "`make test-kernels`" + ` and, for the host, ` + "`make test`" + ` compare with this table. Growth over 10 % fails. These write it:
` + "`go run ./tools/testkernels -update`" + ` and, for the host, ` + "`go test ./test/kernels -update`" + `; they refuse growth over 10 %
of a program that the unreleased part of CHANGELOG.md does not name.

`

const none = "-"

// Parse reads the table from the page.
func Parse(page []byte) (*Table, error) {
	t := &Table{Numbers: map[string]Numbers{}}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case t.Columns == nil:
			if len(cells) < 2 {
				return nil, fmt.Errorf("a heading with %d columns", len(cells))
			}
			t.Columns = cells[2:]
			for _, column := range t.Columns {
				t.Numbers[column] = Numbers{}
			}
			continue
		case strings.HasPrefix(cells[0], "--"):
			continue
		case len(cells) != len(t.Columns)+2:
			return nil, fmt.Errorf("%d cells, want %d: %s", len(cells), len(t.Columns)+2, line)
		}
		for i, column := range t.Columns {
			if cells[i+2] == none {
				continue
			}
			n, err := strconv.Atoi(cells[i+2])
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", column, cells[1], err)
			}
			t.Numbers[column][Row{cells[0], cells[1]}] = n
		}
	}
	return t, nil
}

// Page is the page with the table.
func (t *Table) Page() []byte {
	rows := t.rows()
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| probe | program | " + strings.Join(t.Columns, " | ") + " |\n")
	b.WriteString("|---|---|" + strings.Repeat("---:|", len(t.Columns)) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s | %s |", row.Probe, row.Name)
		for _, column := range t.Columns {
			if n, ok := t.Numbers[column][row]; ok {
				fmt.Fprintf(&b, " %d |", n)
			} else {
				b.WriteString(" " + none + " |")
			}
		}
		b.WriteString("\n")
	}
	return []byte(b.String())
}

func (t *Table) rows() []Row {
	all := map[Row]bool{}
	for _, numbers := range t.Numbers {
		for row := range numbers {
			all[row] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Probe, b.Probe), cmp.Compare(a.Name, b.Name))
	})
}

// percent is by how much a number may grow.
const percent = 10

// Compare says what is wrong with new numbers of a kernel: what has grown too
// much, and which program the table does not know.
func (t *Table) Compare(column string, numbers Numbers) []string {
	known := t.rows()
	var wrong []string
	for row, n := range numbers {
		was, ok := t.Numbers[column][row]
		switch {
		case row == LoadTime:
		case !slices.Contains(known, row):
			wrong = append(wrong, fmt.Sprintf("%s %s: not in the table", row.Probe, row.Name))
		case ok && n*100 > was*(100+percent):
			wrong = append(wrong, fmt.Sprintf("%s %s: %d, was %d", row.Probe, row.Name, n, was))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Update puts the numbers of a kernel in place of those before. It refuses
// growth that the changes do not explain.
func (t *Table) Update(column string, numbers Numbers, changelog []byte) error {
	unreleased := unreleased(string(changelog))
	for row, n := range numbers {
		was, ok := t.Numbers[column][row]
		if row != LoadTime && ok && n*100 > was*(100+percent) && !strings.Contains(unreleased, row.Name) {
			return fmt.Errorf("%s: %s has grown from %d to %d; say why in CHANGELOG.md, naming it", column, row.Name, was, n)
		}
	}
	if !slices.Contains(t.Columns, column) {
		t.Columns = append(t.Columns, column)
		slices.SortFunc(t.Columns, columnOrder)
	}
	t.Numbers[column] = numbers
	return nil
}

func unreleased(changelog string) string {
	_, after, _ := strings.Cut(changelog, "## Unreleased")
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

// columnOrder sorts by architecture, then by version; a name is after them.
func columnOrder(a, b string) int {
	key := func(column string) (string, int) {
		words := strings.Fields(column)
		if len(words) < 2 {
			return column, 0
		}
		major, minor, _ := strings.Cut(words[0], ".")
		x, err := strconv.Atoi(major)
		if err != nil {
			return words[1], 1 << 30
		}
		y, _ := strconv.Atoi(minor)
		return words[1], x<<16 + y
	}
	archA, versionA := key(a)
	archB, versionB := key(b)
	return cmp.Or(cmp.Compare(archA, archB), cmp.Compare(versionA, versionB), cmp.Compare(a, b))
}

// line begins what a test in a machine says for Read.
const line = "@@ measured"

// Say is a number as a test prints it for Read, on a line of its own.
func Say(row Row, n int) string { return fmt.Sprintf("\n%s|%s|%s|%d\n", line, row.Probe, row.Name, n) }

// Read finds the numbers that tests have said.
func Read(lines []string) Numbers {
	numbers := Numbers{}
	for _, text := range lines {
		words := strings.Split(text, "|")
		if len(words) != 4 || words[0] != line {
			continue
		}
		if n, err := strconv.Atoi(words[3]); err == nil {
			numbers[Row{words[1], words[2]}] = n
		}
	}
	return numbers
}
