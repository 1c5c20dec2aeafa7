// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads the Packages table of rpm's database (rpmdb(8)) in place: sqlite with
// its write-ahead log, ndb or Berkeley DB, below /usr/lib/sysimage/rpm or
// /var/lib/rpm. Nothing is copied, locked or written; a change in the middle
// shows in the times of the files, and then the read is made again.

// Limits of one rpm database, in bytes.
const (
	maxRPMDatabase = 2 << 30
	maxRPMHeader   = 64 << 20
	maxRPMLog      = 256 << 20
)

const (
	rpmAttempts = 4
	rpmPause    = 100 * time.Millisecond
)

type rpmFormat struct {
	file string
	// log and journal are what sqlite may have beside the file.
	log, journal string
	each         func(db, log *countingReaderAt, header func([]byte) error) error
}

func rpmFormats() []rpmFormat {
	return []rpmFormat{
		{"rpmdb.sqlite", "rpmdb.sqlite-wal", "rpmdb.sqlite-journal", eachSQLite},
		{"Packages.db", "", "", eachNDB},
		{"Packages", "", "", eachBDB},
	}
}

// gpgKey is the name under which rpm stores imported keys as if they were
// packages.
const gpgKey = "gpg-pubkey"

func readRPM(ctx context.Context, t *hostfs.Tree) (Database, error) {
	var d Database
	err := eachRPM(ctx, t, func() { d = Database{} }, func(h *rpmHeader) error {
		d.Count++
		if h.text(tagName) == gpgKey {
			return nil
		}
		if at := h.number(tagInstallTime); at > 0 {
			if when := time.Unix(at, 0); when.After(d.Patched) {
				d.Patched = when
			}
		}
		return nil
	})
	return d, err
}

func ownersRPM(ctx context.Context, t *hostfs.Tree, w *wanted) error {
	type claim struct {
		path  string
		owner Owner
	}
	var claims []claim
	err := eachRPM(ctx, t, func() { claims = nil }, func(h *rpmHeader) error {
		return h.files(func(path string) {
			if w.has(path) {
				claims = append(claims, claim{path, Owner{RPM, h.text(tagName), h.version()}})
			}
		})
	})
	if err != nil {
		return err
	}
	for _, c := range claims {
		w.found(c.path, c.owner)
	}
	return nil
}

// eachRPM calls f for each package. When the database changed meanwhile it
// calls restart and begins again. The header is valid during the call.
func eachRPM(ctx context.Context, t *hostfs.Tree, restart func(), f func(*rpmHeader) error) error {
	dir, format, err := findRPM(ctx, t)
	if err != nil {
		return err
	}
	for range rpmAttempts {
		restart()
		var again bool
		if again, err = readRPMOnce(ctx, t, dir, format, f); !again {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rpmPause):
		}
	}
	return fmt.Errorf("%s%s changes all the time: a transaction is under way (last error: %w)", dir, format.file, orNone(err))
}

func orNone(err error) error {
	if err == nil {
		return errors.New("none")
	}
	return err
}

func findRPM(ctx context.Context, t *hostfs.Tree) (string, rpmFormat, error) {
	for _, dir := range []string{"/usr/lib/sysimage/rpm/", "/var/lib/rpm/"} {
		for _, format := range rpmFormats() {
			_, err := t.Stat(ctx, dir+format.file)
			if err == nil {
				return dir, format, nil
			}
			if !errors.Is(err, hostfs.ErrNotExist) {
				return "", rpmFormat{}, err
			}
		}
	}
	return "", rpmFormat{}, hostfs.ErrNotExist
}

// readRPMOnce also tells whether the files changed while they were read, in
// which case its error means nothing.
func readRPMOnce(ctx context.Context, t *hostfs.Tree, dir string, format rpmFormat, f func(*rpmHeader) error) (again bool, err error) {
	before := rpmState(ctx, t, dir, format)
	if before.journal {
		return true, errors.New("sqlite has a rollback journal")
	}
	db, err := openRPM(ctx, t, dir+format.file, maxRPMDatabase)
	if err != nil {
		return false, err
	}
	defer db.close()
	log := &rpmFile{}
	if format.log != "" {
		log, err = openRPM(ctx, t, dir+format.log, maxRPMLog)
		if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			return false, err
		}
		defer log.close()
	}
	count := 0
	err = format.each(db.reader(), log.reader(), func(b []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if count++; count > maxPackages {
			return errTooMany
		}
		h, err := parseRPMHeader(b)
		if err != nil {
			return err
		}
		return f(h)
	})
	if err != nil {
		err = fmt.Errorf("%s%s: %w", dir, format.file, err)
	}
	return ctx.Err() == nil && before != rpmState(ctx, t, dir, format), err
}

// rpmFile is an open part of the database; the zero value is one that does
// not exist.
type rpmFile struct {
	file *os.File
	size int64
}

func openRPM(ctx context.Context, t *hostfs.Tree, name string, limit int64) (*rpmFile, error) {
	f, err := t.Open(ctx, name)
	if err != nil {
		return &rpmFile{}, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() > limit {
		err = fmt.Errorf("%s: %w of %d bytes", name, hostfs.ErrTooLarge, limit)
	}
	if err != nil {
		_ = f.Close()
		return &rpmFile{}, err
	}
	return &rpmFile{f, st.Size()}, nil
}

func (f *rpmFile) close() {
	if f.file != nil {
		_ = f.file.Close()
	}
}

// reader allows each byte to be read twice: once as what it is, once while
// looking for it. nil when there is no file.
func (f *rpmFile) reader() *countingReaderAt {
	if f.file == nil {
		return nil
	}
	return newCounting(f.file, f.size)
}

func newCounting(r io.ReaderAt, size int64) *countingReaderAt {
	return &countingReaderAt{r: r, size: size, left: 2*size + 1<<16}
}

// rpmSnapshot is what changes when somebody writes to the database.
type rpmSnapshot struct {
	db, log fileState
	journal bool
}

type fileState struct {
	ino      uint64
	size     int64
	modified time.Time
}

func rpmState(ctx context.Context, t *hostfs.Tree, dir string, format rpmFormat) rpmSnapshot {
	state := func(name string) fileState {
		if name == "" {
			return fileState{}
		}
		i, err := t.Stat(ctx, dir+name)
		if err != nil {
			return fileState{}
		}
		return fileState{i.Ino, i.Size, i.ModTime}
	}
	return rpmSnapshot{state(format.file), state(format.log), state(format.journal).size > 0}
}
