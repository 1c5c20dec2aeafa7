// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"context"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads /lib/apk/db/installed, or /usr/lib/apk/db/installed of newer releases:
// apk-package(5), apk-v2(5). It keeps no time; apk rewrites the file with
// every change, so its modification time is that of the last change.

const (
	apkOld = "/lib/apk/db/installed"
	apkNew = "/usr/lib/apk/db/installed"
)

func readAPK(ctx context.Context, t *hostfs.Tree) (Database, error) {
	b, err := firstFile(ctx, t, apkOld, apkNew)
	if err != nil {
		return Database{}, err
	}
	d := Database{}
	err = parseAPK(b, func(string, Owner) bool { return false }, func() { d.Count++ })
	if err != nil {
		return d, err
	}
	d.Patched, err = newestOf(ctx, t, apkOld, apkNew)
	return d, err
}

func ownersAPK(ctx context.Context, t *hostfs.Tree, w *wanted) error {
	b, err := firstFile(ctx, t, apkOld, apkNew)
	if err != nil {
		return err
	}
	return parseAPK(b, func(name string, o Owner) bool {
		w.found(name, o)
		return true
	}, func() {})
}

// parseAPK reads records of one-letter keys that a blank line ends. P is the
// name and counts a package, V the version, F a directory and R a file in it.
// file is called for each file until it returns false.
func parseAPK(b []byte, file func(name string, o Owner) bool, counted func()) error {
	o := Owner{Type: APK}
	dir, files, n := "", true, 0
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\n")
		if len(line) == 0 {
			o, dir = Owner{Type: APK}, ""
			continue
		}
		if len(line) < 2 || line[1] != ':' {
			continue
		}
		switch value := line[2:]; line[0] {
		case 'P':
			if n++; n > maxPackages {
				return errTooMany
			}
			o.Name = string(value)
			counted()
		case 'V':
			o.Version = string(value)
		case 'F':
			dir = string(value)
		case 'R':
			if !files {
				continue
			}
			name := string(value)
			if dir != "" {
				name = dir + "/" + name
			}
			files = file(name, o)
		}
	}
	return nil
}

// newestOf is the modification time of the first file that is there.
func newestOf(ctx context.Context, t *hostfs.Tree, names ...string) (time.Time, error) {
	var i hostfs.Info
	err := error(hostfs.ErrNotExist)
	for _, name := range names {
		if i, err = t.Stat(ctx, name); err == nil {
			break
		}
	}
	return i.ModTime, err
}
