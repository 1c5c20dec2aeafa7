// SPDX-License-Identifier: Apache-2.0

package version

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"security-exporter/internal/hostfs"
)

// cappedReader ends reading after so many bytes, whatever the offsets in a
// file ask for.
type cappedReader struct {
	r    io.ReaderAt
	left int64
}

var errCap = errors.New("more to read than allowed")

func (c *cappedReader) ReadAt(p []byte, off int64) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		return 0, errCap
	}
	return c.r.ReadAt(p, off)
}

// readBinary asks an executable about itself.
func readBinary(file *os.File, _ hostfs.Info) (found, error) {
	return identifyBinary(file)
}

// identifyBinary asks for Go build information, then for a package note. The
// standard library does not promise to withstand hostile ELF files, so a panic
// there is an error.
func identifyBinary(file io.ReaderAt) (got found, err error) {
	defer func() {
		if p := recover(); p != nil {
			got, err = found{}, fmt.Errorf("reading the executable: %v", p)
		}
	}()
	r := &cappedReader{file, MaxRead}
	e, err := parseELF(r)
	if err != nil {
		return found{}, err
	}
	note := noteFound(e, r)
	if !e.packedNames {
		if info, err := buildinfo.Read(r); err == nil {
			got = goFound(info)
		}
	}
	if got.version == "" && note.version != "" {
		return note, nil
	}
	return got, nil
}

// goFound names a Go program after its main package. Its version is that of
// the main module; where that is (devel), the one the linker was told to set.
func goFound(info *buildinfo.BuildInfo) found {
	name := info.Path
	if name == "command-line-arguments" || name == "" {
		name = info.Main.Path
	}
	got := found{app: moduleName(name), source: Go}
	if v := info.Main.Version; v != "(devel)" {
		got.version = plausible(v)
	}
	if got.version == "" {
		for _, s := range info.Settings {
			if s.Key == "-ldflags" {
				got.version = linkedVersion(s.Value)
			}
		}
	}
	return got
}

// moduleName is the last component of an import path that is no /v2.
func moduleName(p string) string {
	base := path.Base(p)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(p))
	}
	if base == "." || base == "/" {
		return ""
	}
	return base
}

// linkedVersion is the value of -X PACKAGE.Version=VALUE. When several of
// them differ there is no telling which is the program's.
func linkedVersion(flags string) string {
	got := ""
	for _, word := range strings.Fields(flags) {
		word = strings.Trim(strings.TrimPrefix(word, "-X="), `"'`)
		name, value, ok := strings.Cut(word, "=")
		dot := strings.LastIndexByte(name, '.')
		if !ok || dot < 0 || !strings.EqualFold(name[dot+1:], "version") {
			continue
		}
		value = plausible(strings.Trim(value, `"'`))
		if value == "" {
			continue
		}
		if got != "" && got != value {
			return ""
		}
		got = value
	}
	return got
}

// noteFound reads the package note, which distributions link into what they
// build (https://systemd.io/ELF_PACKAGE_METADATA).
func noteFound(e *elfFile, r io.ReaderAt) found {
	for _, segment := range e.notes {
		// Build id and package note take a few hundred bytes.
		if segment.size > hostfs.ValueLimit {
			continue
		}
		b := make([]byte, segment.size)
		if _, err := r.ReadAt(b, segment.offset); err != nil {
			continue
		}
		if desc := findNote(b, e.order, segment.align, "FDO", notePackage); desc != nil {
			return parseNote(desc)
		}
	}
	return found{}
}

func parseNote(desc []byte) found {
	var note struct{ Name, Version string }
	if json.Unmarshal([]byte(strings.TrimRight(string(desc), "\x00")), &note) != nil {
		return found{}
	}
	return found{app: note.Name, version: plausible(note.Version), source: ELFNote}
}
