// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

// maxGlobbed is the most paths one pattern may stand for.
const maxGlobbed = 1024

// globAll returns the paths that match a pattern with wildcards in any
// component, in the order of their bytes, as glob(3) does in the C locale.
// What does not exist matches nothing.
func globAll(ctx context.Context, root *hostfs.Tree, pattern string) ([]string, error) {
	found := []string{"/"}
	for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			matches, err := globOne(ctx, root, path.Join(dir, part), part)
			if err != nil {
				return nil, err
			}
			if next = append(next, matches...); len(next) > maxGlobbed {
				return nil, &patternError{pattern}
			}
		}
		found = next
	}
	slices.Sort(found)
	return found, nil
}

func globOne(ctx context.Context, root *hostfs.Tree, full, part string) ([]string, error) {
	if !strings.ContainsAny(part, `*?[\`) {
		_, err := root.Stat(ctx, full)
		if err != nil {
			return nil, unlessMissing(err)
		}
		return []string{full}, nil
	}
	// glob(3) negates a set with "!", path.Match with "^".
	dir, _ := path.Split(full)
	matches, err := root.Glob(ctx, dir+strings.ReplaceAll(part, "[!", "[^"))
	if errors.Is(err, path.ErrBadPattern) {
		return nil, nil
	}
	return matches, unlessMissing(err)
}

// unlessMissing drops the error of a name that leads nowhere, also for a file
// in the place of a directory.
func unlessMissing(err error) error {
	if errors.Is(err, hostfs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

type patternError struct{ pattern string }

func (e *patternError) Error() string {
	return "glob " + e.pattern + ": more than 1024 paths: use a narrower pattern"
}
