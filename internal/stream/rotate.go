// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/DeRuina/timberjack"
	"golang.org/x/sys/unix"
)

// rotatingFile is a regular file that is cut at a size. The library keeps its
// descriptor when somebody renames or removes the file, and makes directories;
// this looks at the path before each write, so that nothing is written to a
// file that is gone.
type rotatingFile struct {
	options OutputOptions
	logger  *timberjack.Logger
	current fs.FileInfo // the file that the library has open, or nil
}

func newRotatingFile(options OutputOptions) *rotatingFile { return &rotatingFile{options: options} }

// open makes the file if there is none, with mode 0600, and refuses what is no
// regular file.
func (r *rotatingFile) open() error {
	path := r.options.Path
	if err := directoryOf(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: is no regular file", path)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	r.logger = &timberjack.Logger{
		Filename: path, MaxSize: r.options.FileMiB, MaxBackups: r.options.Backups, FileMode: 0o600, Compression: "none",
	}
	r.current = st
	return nil
}

func (r *rotatingFile) Write(p []byte) (int, error) {
	st, err := os.Stat(r.options.Path)
	if err != nil || r.current == nil || !os.SameFile(st, r.current) {
		if err := r.Close(); err != nil {
			return 0, err
		}
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n, err := r.logger.Write(p)
	// The write may have begun a new file.
	if st, statErr := os.Stat(r.options.Path); statErr == nil {
		r.current = st
	}
	return n, err
}

func (r *rotatingFile) Close() error {
	if r.logger == nil {
		return nil
	}
	err := r.logger.Close()
	r.logger, r.current = nil, nil
	return err
}
