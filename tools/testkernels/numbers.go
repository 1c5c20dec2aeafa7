// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"security-exporter/internal/testkit/verified"
)

const (
	page      = "docs/verifier.md"
	changelog = "CHANGELOG.md"
)

// judge compares what was measured with the table, or puts it there.
func judge(rows []row, update bool) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	table, err := verified.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	changes, err := os.ReadFile(changelog)
	if err != nil {
		return err
	}
	for i := range rows {
		r := &rows[i]
		column := r.kernel.name + " " + r.kernel.arch
		_, whole := r.numbers[verified.MapMemory]
		switch {
		case !update:
			r.grown = table.Compare(column, r.numbers)
		case !whole || r.err != nil:
			r.grown = []string{"not measured"}
		default:
			if err := table.Update(column, r.numbers, changes); err != nil {
				r.grown = []string{err.Error()}
			}
		}
	}
	if !update {
		return nil
	}
	return os.WriteFile(page, table.Page(), 0o644)
}
