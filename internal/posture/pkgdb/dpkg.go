// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
)

// Reads /var/lib/dpkg/status, or the files of /var/lib/dpkg/status.d where
// an image has no dpkg, /var/lib/dpkg/info/*.list and /var/lib/dpkg/diversions:
// dpkg(1), dpkg-query(1), dpkg-divert(1), deb822(5).

const dpkgDir = "/var/lib/dpkg/"

type dpkgPackage struct{ name, arch, version string }

func readDpkg(ctx context.Context, t *hostfs.Tree) (Database, error) {
	packages, err := dpkgPackages(ctx, t)
	if err != nil {
		return Database{}, err
	}
	patched, err := dpkgPatched(ctx, t)
	if err != nil {
		err = fmt.Errorf("%w: %w", errNoTime, err)
	}
	return Database{Count: len(packages), Patched: patched}, err
}

// dpkgPackages lists what is installed by both sources: an image may have been
// built on one that has no dpkg and then got it.
func dpkgPackages(ctx context.Context, t *hostfs.Tree) ([]dpkgPackage, error) {
	b, err := t.ReadLimit(ctx, dpkgDir+"status", maxText)
	missing := errors.Is(err, hostfs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	packages, err2 := parseDpkgStatus(b, false)
	if err2 != nil {
		return nil, err2
	}
	list, err2 := t.Glob(ctx, dpkgDir+"status.d/*")
	if err2 != nil {
		return nil, err2
	}
	if missing && len(list) == 0 {
		return nil, err
	}
	total := 0
	for _, name := range list {
		if strings.HasSuffix(name, ".md5sums") {
			continue
		}
		b, err := t.ReadLimit(ctx, name, hostfs.ValueLimit)
		if errors.Is(err, hostfs.ErrNotRegular) || errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if total += len(b); total > maxText {
			return nil, errTooMany
		}
		more, err := parseDpkgStatus(b, true)
		if err != nil {
			return nil, err
		}
		packages = append(packages, more...)
	}
	return packages, nil
}

// parseDpkgStatus returns the stanzas that are installed: the third word of
// Status is "installed". In status.d stanzas have no Status and are. A stanza
// without a Package is none.
func parseDpkgStatus(b []byte, statusless bool) ([]dpkgPackage, error) {
	var out []dpkgPackage
	var p dpkgPackage
	installed := statusless
	end := func() error {
		if p.name != "" && installed {
			if len(out) == maxPackages {
				return errTooMany
			}
			out = append(out, p)
		}
		p, installed = dpkgPackage{}, statusless
		return nil
	}
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 {
			if err := end(); err != nil {
				return nil, err
			}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		switch {
		case bytes.EqualFold(key, []byte("Package")):
			p.name = string(bytes.TrimSpace(value))
		case bytes.EqualFold(key, []byte("Architecture")):
			p.arch = string(bytes.TrimSpace(value))
		case bytes.EqualFold(key, []byte("Version")):
			p.version = string(bytes.TrimSpace(value))
		case bytes.EqualFold(key, []byte("Status")):
			words := bytes.Fields(value)
			installed = len(words) == 3 && string(words[2]) == "installed"
		}
	}
	return out, end()
}

func ownersDpkg(ctx context.Context, t *hostfs.Tree, w *wanted) error {
	lists, err := dpkgLists(ctx, t)
	if err != nil || len(lists) == 0 {
		return err
	}
	diverted, err := readDiversions(ctx, t)
	if err != nil {
		return err
	}
	owner, err := dpkgListOwners(ctx, t, w, lists, diverted)
	if err != nil || len(owner) == 0 {
		return err
	}
	packages, err := dpkgPackages(ctx, t)
	if err != nil {
		return err
	}
	version := make(map[string]string, 2*len(packages))
	for _, p := range packages {
		version[p.name+":"+p.arch] = p.version
		version[p.name] = p.version
	}
	for _, name := range slices.Sorted(maps.Keys(owner)) {
		pkg := owner[name]
		if v, ok := version[pkg]; ok {
			bare, _, _ := strings.Cut(pkg, ":")
			w.found(name, Owner{Dpkg, bare, v})
		}
	}
	return nil
}

// dpkgLists are the files that list what a package holds; in status.d those
// are the checksums.
func dpkgLists(ctx context.Context, t *hostfs.Tree) ([]string, error) {
	lists, err := t.Glob(ctx, dpkgDir+"info/*.list")
	if err != nil {
		return nil, err
	}
	sums, err := t.Glob(ctx, dpkgDir+"status.d/*.md5sums")
	return append(lists, sums...), err
}

// dpkgListOwners maps wanted paths to "package" or "package:architecture".
func dpkgListOwners(ctx context.Context, t *hostfs.Tree, w *wanted, lists []string, diverted diversions) (map[string]string, error) {
	owner := make(map[string]string)
	total := 0
	// Nearly all of some hundred thousand lines are of no interest, and most
	// of those have another length.
	lengths := w.lengths()
	for from := range diverted {
		lengths[len(from)] = true
	}
	for batch := range slices.Chunk(lists, listBatch) {
		texts, err := readLists(ctx, t, batch, maxText-total)
		if err != nil {
			return nil, err
		}
		for i, b := range texts {
			total += len(b)
			file := path.Base(batch[i])
			pkg, sums := strings.CutSuffix(file, ".md5sums")
			if !sums {
				pkg = strings.TrimSuffix(file, ".list")
			}
			for line := range bytes.Lines(b) {
				line = bytes.TrimSuffix(line, []byte("\n"))
				if sums {
					_, line, _ = bytes.Cut(line, []byte("  "))
				}
				line = bytes.TrimPrefix(line, []byte("/"))
				if !lengths[len(line)] {
					continue
				}
				if name := diverted.place(line, pkg); w.has(name) {
					if _, taken := owner[name]; !taken {
						owner[name] = pkg
					}
				}
			}
		}
	}
	return owner, nil
}

// listBatch is how many lists are read in the time of one call: few enough for
// a disk that has to seek for each.
const listBatch = 64

// readLists returns the text of each list, empty where there is none any more,
// together at most so many bytes.
func readLists(ctx context.Context, t *hostfs.Tree, lists []string, limit int) ([][]byte, error) {
	return hostfs.Batch(ctx, t, path.Dir(lists[0]), func(direct *hostfs.Tree) ([][]byte, error) {
		out := make([][]byte, len(lists))
		total := 0
		for i, list := range lists {
			b, err := direct.ReadLimit(ctx, list, limit)
			if errors.Is(err, hostfs.ErrNotExist) || errors.Is(err, hostfs.ErrNotRegular) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if total += len(b); total > limit {
				return nil, errTooMany
			}
			out[i] = b
		}
		return out, nil
	})
}

// diversions is where a path of any package but one lies instead, both
// without leading slash.
type diversions map[string]diversion

type diversion struct{ to, by string }

func readDiversions(ctx context.Context, t *hostfs.Tree) (diversions, error) {
	b, err := t.ReadLimit(ctx, dpkgDir+"diversions", hostfs.DefaultLimit)
	if errors.Is(err, hostfs.ErrNotExist) {
		return nil, nil
	}
	return parseDiversions(b), err
}

// parseDiversions reads groups of three lines: the path, where it was
// diverted to, and the package that did so, ":" for the administrator.
func parseDiversions(b []byte) diversions {
	lines := strings.Split(string(b), "\n")
	out := make(diversions)
	for i := 0; i+2 < len(lines); i += 3 {
		from := strings.TrimPrefix(lines[i], "/")
		out[from] = diversion{strings.TrimPrefix(lines[i+1], "/"), lines[i+2]}
	}
	return out
}

// place is where the file lies that package pkg lists under a path.
func (d diversions) place(listed []byte, pkg string) string {
	if v, ok := d[string(listed)]; ok {
		if bare, _, _ := strings.Cut(pkg, ":"); bare != v.by {
			return v.to
		}
	}
	return string(listed)
}
