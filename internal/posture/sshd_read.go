// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

const (
	// sshdDepth is how deep sshd lets files include each other.
	sshdDepth = 16
	// maxSSHDFiles and maxSSHDLines bound files that include each other many
	// times without being deep.
	maxSSHDFiles = 512
	maxSSHDLines = 50_000
	maxSSHDBytes = 1 << 20
)

// sshdConfig is a configuration with its included files in the place of the
// Include lines.
type sshdConfig struct {
	lines []sshdLine
	// modTime is that of the file changed last.
	modTime time.Time
	files   int
}

// readSSHD reads the main file and all it includes; dir is where relative
// includes start. With an error, the configuration is what could be read, nil
// if the main file could not. flags are lines from the command line, which
// come first.
func readSSHD(ctx context.Context, root *hostfs.Tree, main, dir string, flags []sshdLine) (*sshdConfig, error) {
	r := sshdReader{ctx: ctx, root: root, dir: dir}
	lines, err := r.file(main, "", 0)
	if r.files == 0 {
		return nil, err
	}
	r.lines = append(flags[:len(flags):len(flags)], lines...)
	return &r.sshdConfig, err
}

type sshdReader struct {
	sshdConfig
	ctx   context.Context
	root  *hostfs.Tree
	dir   string
	count int
}

// file returns the lines of one file. In a file that a Match block includes,
// every line has the condition of that block, and its own Match lines end with
// it.
func (r *sshdReader) file(name, outer string, depth int) ([]sshdLine, error) {
	if depth > sshdDepth || r.files >= maxSSHDFiles {
		return nil, fmt.Errorf("%s: too many included files: does a file include itself?", name)
	}
	b, err := r.root.ReadLimit(r.ctx, name, maxSSHDBytes)
	if err != nil {
		return nil, err
	}
	r.files++
	if st, err := r.root.Stat(r.ctx, name); err == nil && st.ModTime.After(r.modTime) {
		r.modTime = st.ModTime
	}
	parsed, err := parseSSHD(bytes.NewReader(b), name)
	problems := []error{err}
	if r.count += len(parsed); r.count > maxSSHDLines {
		return nil, fmt.Errorf("%s: more than %d lines with the included files", name, maxSSHDLines)
	}
	var out []sshdLine
	match := outer
	for _, l := range parsed {
		switch l.key {
		case "Match":
			match = sshdNested(outer, sshdCondition(l.text))
		case "Include":
			more, err := r.include(l, match, depth)
			out = append(out, more...)
			problems = append(problems, err)
		default:
			l.match = match
			out = append(out, l)
		}
	}
	return out, errors.Join(problems...)
}

// sshdNested is the condition of a Match line inside of an included file. One
// that always holds takes nothing away from the outer one; but the outer one,
// if it does not hold, is not lifted.
func sshdNested(outer, inner string) string {
	switch {
	case outer == "" || outer == sshdMatchAll:
		return inner
	case inner == sshdMatchAll:
		return outer
	}
	return outer + " " + inner
}

func (r *sshdReader) include(l sshdLine, match string, depth int) ([]sshdLine, error) {
	var out []sshdLine
	var problems []error
	for _, pattern := range l.args {
		if !path.IsAbs(pattern) {
			pattern = path.Join(r.dir, pattern)
		}
		files, err := globAll(r.ctx, r.root, pattern)
		problems = append(problems, err)
		for _, f := range files {
			lines, err := r.file(f, match, depth+1)
			if errors.Is(err, hostfs.ErrNotExist) && lines == nil {
				// It went between the two steps.
				continue
			}
			out = append(out, lines...)
			problems = append(problems, err)
			if r.files >= maxSSHDFiles || r.count > maxSSHDLines {
				return out, errors.Join(problems...)
			}
		}
	}
	return out, errors.Join(problems...)
}

// effective returns the lines that make the value of a keyword for a
// connection that no condition singles out, as sshd -T prints it. None means
// the built-in default.
func (c *sshdConfig) effective(key string) []sshdLine {
	info := sshdKeywords[strings.ToLower(key)]
	var all []sshdLine
	below := false
	for _, l := range c.lines {
		if !l.always() || !strings.EqualFold(l.key, key) {
			continue
		}
		if info.match && l.match == sshdMatchAll && !below {
			below = true
			all = nil
		}
		if !below || l.match == sshdMatchAll {
			all = append(all, l)
		}
	}
	if only := slices.IndexFunc(all, func(l sshdLine) bool { return !l.only }); only > 0 {
		all = all[:only]
	}
	switch {
	case len(all) == 0 || info.every:
		return all
	case info.last:
		return all[len(all)-1:]
	}
	return all[:1]
}

// keys lists the keywords that are set for every connection, in the order in
// which they first appear.
func (c *sshdConfig) keys() []string {
	var out []string
	seen := make(map[string]bool)
	for _, l := range c.lines {
		if k := strings.ToLower(l.key); l.always() && !seen[k] {
			seen[k] = true
			out = append(out, l.key)
		}
	}
	return out
}
