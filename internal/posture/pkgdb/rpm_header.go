// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// A package in rpm's database is a header without its magic: two big-endian
// counts, that many index entries of 16 bytes, and the data they point into
// (rpm's docs/manual/format_header.md).

// The tags in use and their types, from rpm's rpmtag.h.
const (
	tagName         = 1000
	tagVersion      = 1001
	tagRelease      = 1002
	tagEpoch        = 1003
	tagInstallTime  = 1008
	tagOldFileNames = 1027
	tagDirIndexes   = 1116
	tagBaseNames    = 1117
	tagDirNames     = 1118

	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
)

// Index entries and data bytes that rpm itself allows (header.c).
const (
	maxRPMEntries = 0xffff
	rpmEntrySize  = 16
)

type rpmHeader struct {
	entries map[uint32]rpmEntry
	data    []byte
}

type rpmEntry struct{ kind, offset, count uint32 }

func parseRPMHeader(b []byte) (*rpmHeader, error) {
	if len(b) < 8 {
		return nil, damaged("a header of %d bytes", len(b))
	}
	n, size := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if n > maxRPMEntries || int64(len(b)) < 8+int64(n)*rpmEntrySize+int64(size) {
		return nil, damaged("a header of %d entries and %d bytes in %d bytes", n, size, len(b))
	}
	start := 8 + int(n)*rpmEntrySize
	h := &rpmHeader{make(map[uint32]rpmEntry), b[start : start+int(size)]}
	for i := 8; i < start; i += rpmEntrySize {
		tag := binary.BigEndian.Uint32(b[i:])
		switch tag {
		case tagName, tagVersion, tagRelease, tagEpoch, tagInstallTime, tagOldFileNames, tagDirIndexes, tagBaseNames, tagDirNames:
			// What was added at installation stands behind the signed part
			// and replaces it.
			h.entries[tag] = rpmEntry{binary.BigEndian.Uint32(b[i+4:]), binary.BigEndian.Uint32(b[i+8:]), binary.BigEndian.Uint32(b[i+12:])}
		}
	}
	if h.text(tagName) == "" {
		return nil, damaged("a header without a name")
	}
	return h, nil
}

// at is the data of an entry of this type, nil if there is none.
func (h *rpmHeader) at(tag, kind uint32) ([]byte, int) {
	e, ok := h.entries[tag]
	if !ok || e.kind != kind || int64(e.offset) > int64(len(h.data)) {
		return nil, 0
	}
	return h.data[e.offset:], int(e.count)
}

func (h *rpmHeader) text(tag uint32) string {
	b, _ := h.at(tag, typeString)
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func (h *rpmHeader) number(tag uint32) int64 {
	b, n := h.at(tag, typeInt32)
	if n < 1 || len(b) < 4 {
		return 0
	}
	return int64(binary.BigEndian.Uint32(b))
}

// version is [epoch:]version-release; an epoch of 0 is not written.
func (h *rpmHeader) version() string {
	v := h.text(tagVersion) + "-" + h.text(tagRelease)
	if epoch := h.number(tagEpoch); epoch > 0 {
		v = strconv.FormatInt(epoch, 10) + ":" + v
	}
	return v
}

// files calls f for each path of the package.
func (h *rpmHeader) files(f func(path string)) error {
	if old, n := h.at(tagOldFileNames, typeStringArray); n > 0 {
		return eachString(old, n, func(_ int, s []byte) error {
			f(string(s))
			return nil
		})
	}
	base, n := h.at(tagBaseNames, typeStringArray)
	indexes, ni := h.at(tagDirIndexes, typeInt32)
	if n == 0 {
		return nil
	}
	if ni < n || int64(len(indexes)) < 4*int64(n) {
		return damaged("%s: %d files, %d directory indexes", h.text(tagName), n, ni)
	}
	var dirs []string
	dirData, nd := h.at(tagDirNames, typeStringArray)
	if err := eachString(dirData, nd, func(_ int, s []byte) error {
		dirs = append(dirs, string(s))
		return nil
	}); err != nil {
		return err
	}
	return eachString(base, n, func(i int, s []byte) error {
		dir := binary.BigEndian.Uint32(indexes[4*i:])
		if int64(dir) >= int64(len(dirs)) {
			return damaged("%s: no directory %d", h.text(tagName), dir)
		}
		f(dirs[dir] + string(s))
		return nil
	})
}

// eachString calls f for n strings, each ended by a zero byte.
func eachString(b []byte, n int, f func(i int, s []byte) error) error {
	for i := range n {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			return damaged("%d strings announced, %d found", n, i)
		}
		if err := f(i, b[:end]); err != nil {
			return err
		}
		b = b[end+1:]
	}
	return nil
}
