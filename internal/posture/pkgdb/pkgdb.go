// SPDX-License-Identifier: Apache-2.0

// Package pkgdb reads the package databases of a file system tree without
// executing a package manager: dpkg, rpm (sqlite, ndb and Berkeley DB), apk
// and pacman. Read counts what is installed, Owners tells which package a
// path belongs to.
//
// The tree may be the host or the root of a container, so a database is as
// hostile as any file: reading one never writes, never panics, never follows
// a cycle and stops at a cap.
package pkgdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"security-exporter/internal/hostfs"
)

// Type is a package manager, as metrics spell it.
type Type string

// The package managers known.
const (
	Dpkg   Type = "dpkg"
	RPM    Type = "rpm"
	APK    Type = "apk"
	Pacman Type = "pacman"
)

// Types is every Type, in the order in which they are asked.
func Types() []Type { return []Type{Dpkg, RPM, APK, Pacman} }

// Limits on one tree. A database above them is an error.
const (
	// maxText is the largest text database, and the most text read from the
	// file lists of one tree, in bytes.
	maxText = 64 << 20
	// maxPackages is the most packages of one database.
	maxPackages = 1 << 17
)

// errNoTime: only the time of the last patch could not be read.
var errNoTime = errors.New("time of the last patch")

var errTooMany = fmt.Errorf("%w of %d packages", hostfs.ErrTooLarge, maxPackages)

// Database is what one package manager says about a tree.
type Database struct {
	Type Type
	// Count is the number of packages installed: removed packages whose
	// configuration is left do not count.
	Count int
	// Patched is when a package was last installed or upgraded; zero when the
	// database does not say.
	Patched time.Time
}

// Owner is the package that a file belongs to.
type Owner struct {
	Type          Type
	Name, Version string
}

// Read returns the databases of a tree; none is no error. With an error, those
// returned are right, though perhaps without Patched, and the error names
// what is missing.
func Read(ctx context.Context, t *hostfs.Tree) ([]Database, error) {
	var out []Database
	var errs []error
	for _, m := range managers() {
		d, err := m.read(ctx, t)
		if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s database: %w", m.kind, err))
		}
		if err == nil || errors.Is(err, errNoTime) {
			d.Type = m.kind
			out = append(out, d)
		}
	}
	return out, errors.Join(errs...)
}

// Owners returns the package of each path that belongs to one. Paths are
// absolute and without symbolic links, as the kernel names an executable. The
// work is one pass over each database, however many paths are asked for. With
// an error, the owners found so far are returned too.
func Owners(ctx context.Context, t *hostfs.Tree, paths []string) (map[string]Owner, error) {
	want := newWanted(paths)
	var errs []error
	for _, m := range managers() {
		if want.done() {
			break
		}
		if err := m.owners(ctx, t, want); err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s database: %w", m.kind, err))
		}
	}
	return want.owner, errors.Join(errs...)
}

type manager struct {
	kind   Type
	read   func(context.Context, *hostfs.Tree) (Database, error)
	owners func(context.Context, *hostfs.Tree, *wanted) error
}

func managers() []manager {
	return []manager{
		{Dpkg, readDpkg, ownersDpkg},
		{RPM, readRPM, ownersRPM},
		{APK, readAPK, ownersAPK},
		{Pacman, readPacman, ownersPacman},
	}
}

// firstFile reads the first of several places that has the file.
func firstFile(ctx context.Context, t *hostfs.Tree, names ...string) ([]byte, error) {
	var b []byte
	err := error(hostfs.ErrNotExist)
	for _, name := range names {
		if b, err = t.ReadLimit(ctx, name, maxText); !errors.Is(err, hostfs.ErrNotExist) {
			break
		}
	}
	return b, err
}

// countingReaderAt ends reading after so many bytes: the bound of everything
// that follows offsets found in a file.
type countingReaderAt struct {
	r          io.ReaderAt
	size, left int64
}

func (c *countingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		return 0, fmt.Errorf("%w: more was asked for than the file holds", errDamaged)
	}
	return c.r.ReadAt(p, off)
}

var errDamaged = errors.New("the database is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}
