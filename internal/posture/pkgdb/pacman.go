// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads /var/lib/pacman/local/*/desc and files: pacman(8), libalpm's local
// database.

const pacmanDir = "/var/lib/pacman/local"

func readPacman(ctx context.Context, t *hostfs.Tree) (Database, error) {
	var d Database
	err := eachPacman(ctx, t, func(_ string, desc map[string][]string) error {
		d.Count++
		if at := first(desc["INSTALLDATE"]); at != "" {
			seconds, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				return damaged("INSTALLDATE %q", at)
			}
			if when := time.Unix(seconds, 0); when.After(d.Patched) {
				d.Patched = when
			}
		}
		return nil
	})
	return d, err
}

func ownersPacman(ctx context.Context, t *hostfs.Tree, w *wanted) error {
	total := 0
	return eachPacman(ctx, t, func(dir string, desc map[string][]string) error {
		b, err := t.ReadLimit(ctx, dir+"/files", maxText)
		if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			return err
		}
		if total += len(b); total > maxText {
			return errTooMany
		}
		o := Owner{Pacman, first(desc["NAME"]), first(desc["VERSION"])}
		for _, name := range parsePacman(b)["FILES"] {
			w.found(name, o)
		}
		return nil
	})
}

// eachPacman calls f for each directory with a desc: one without is what an
// aborted transaction left.
func eachPacman(ctx context.Context, t *hostfs.Tree, f func(dir string, desc map[string][]string) error) error {
	entries, err := t.ReadDir(ctx, pacmanDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type.IsDir() {
			continue
		}
		dir := pacmanDir + "/" + e.Name
		b, err := t.ReadLimit(ctx, dir+"/desc", hostfs.DefaultLimit)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f(dir, parsePacman(b)); err != nil {
			return err
		}
	}
	return nil
}

// parsePacman reads sections: a %NAME% line, then values up to a blank line.
func parsePacman(b []byte) map[string][]string {
	out := make(map[string][]string)
	section := ""
	for line := range bytes.Lines(b) {
		s := strings.TrimRight(string(line), "\r\n")
		switch {
		case s == "":
			section = ""
		case section == "" && len(s) > 2 && s[0] == '%' && s[len(s)-1] == '%':
			section = s[1 : len(s)-1]
		case section != "":
			out[section] = append(out[section], s)
		}
	}
	return out
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
