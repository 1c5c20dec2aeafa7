// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"encoding/binary"
	"strings"
)

// One table of a sqlite database, read as https://www.sqlite.org/fileformat2.html
// describes it: the schema gives the root page of Packages (hnum, blob), whose
// b-tree is walked from left to right. SQL is never run, so what a foreign
// schema declares (views, triggers, generated columns) has no effect.

const (
	sqliteMagic  = "SQLite format 3\x00"
	sqliteHeader = 100

	pageInterior = 0x05
	pageLeaf     = 0x0d
	maxDepth     = 20
)

type sqliteDB struct {
	file     *countingReaderAt
	log      *walLog
	pageSize int
	// usable is the page size without what extensions reserve at its end.
	usable int
	// read counts pages: a page belongs to one place, so a walk that needs
	// more than there are goes round in circles.
	read, pages int64
}

// eachSQLite calls header with each value of the blob column.
func eachSQLite(db, log *countingReaderAt, header func([]byte) error) error {
	s, err := openSQLite(db, log)
	if err != nil {
		return err
	}
	root := uint32(0)
	err = s.rows(1, 0, func(record []byte) error {
		cols, err := parseRecord(record)
		if err != nil {
			return err
		}
		if len(cols) >= 4 && string(cols[0].data) == "table" && strings.EqualFold(string(cols[2].data), "Packages") {
			root = uint32(cols[3].integer())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return damaged("it has no table Packages")
	}
	s.read = 0
	return s.rows(root, 0, func(record []byte) error {
		cols, err := parseRecord(record)
		if err != nil {
			return err
		}
		if len(cols) < 2 {
			return damaged("a row of Packages has %d columns", len(cols))
		}
		return header(cols[1].data)
	})
}

func openSQLite(db, log *countingReaderAt) (*sqliteDB, error) {
	h := make([]byte, sqliteHeader)
	if _, err := db.ReadAt(h, 0); err != nil {
		return nil, err
	}
	if string(h[:16]) != sqliteMagic {
		return nil, damaged("it is not an sqlite database")
	}
	size := int(binary.BigEndian.Uint16(h[16:]))
	if size == 1 {
		size = 65536
	}
	if size < 512 || size&(size-1) != 0 || int(h[20]) > size-480 {
		return nil, damaged("its page size is %d", size)
	}
	s := &sqliteDB{file: db, pageSize: size, usable: size - int(h[20]), pages: db.size/int64(size) + 1}
	// Read version 2 is the write-ahead log; without it a log is a leftover.
	if log != nil && h[19] == 2 {
		var err error
		if s.log, err = readWAL(log, size); err != nil {
			return nil, err
		}
		s.pages += int64(len(s.log.frame))
	}
	return s, nil
}

func (s *sqliteDB) page(n uint32) ([]byte, error) {
	if s.read++; n == 0 || s.read > s.pages {
		return nil, damaged("page %d is out of place", n)
	}
	b := make([]byte, s.pageSize)
	if s.log != nil {
		if at, ok := s.log.frame[n]; ok {
			_, err := s.log.file.ReadAt(b, at)
			return b, err
		}
	}
	_, err := s.file.ReadAt(b, int64(n-1)*int64(s.pageSize))
	return b, err
}

// rows calls f with the record of each row of the table b-tree below a page.
func (s *sqliteDB) rows(n uint32, depth int, f func([]byte) error) error {
	if depth > maxDepth {
		return damaged("a tree deeper than %d", maxDepth)
	}
	b, err := s.page(n)
	if err != nil {
		return err
	}
	head := b
	if n == 1 {
		head = b[sqliteHeader:]
	}
	cells := int(binary.BigEndian.Uint16(head[3:]))
	start := 8
	if head[0] == pageInterior {
		start = 12
	} else if head[0] != pageLeaf {
		return damaged("page %d has type %d", n, head[0])
	}
	if start+2*cells > len(head) {
		return damaged("page %d has %d cells", n, cells)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[start+2*i:]))
		if at+4 > s.usable {
			return damaged("a cell of page %d is outside of it", n)
		}
		if head[0] == pageInterior {
			err = s.rows(binary.BigEndian.Uint32(b[at:]), depth+1, f)
		} else {
			err = s.cell(b[at:s.usable], f)
		}
		if err != nil {
			return err
		}
	}
	if head[0] == pageInterior {
		return s.rows(binary.BigEndian.Uint32(head[8:]), depth+1, f)
	}
	return nil
}

// cell puts a record together from the page and its chain of overflow pages.
func (s *sqliteDB) cell(b []byte, f func([]byte) error) error {
	size, n := varint(b)
	_, m := varint(b[n:])
	if n == 0 || m == 0 || size > maxRPMHeader {
		return damaged("a row of %d bytes", size)
	}
	b = b[n+m:]
	local := s.local(int(size))
	if local == int(size) {
		if local > len(b) {
			return damaged("a row goes past its page")
		}
		return f(b[:local])
	}
	if local+4 > len(b) {
		return damaged("a row goes past its page")
	}
	record := append(make([]byte, 0, local), b[:local]...)
	next := binary.BigEndian.Uint32(b[local:])
	for len(record) < int(size) {
		page, err := s.page(next)
		if err != nil {
			return err
		}
		next = binary.BigEndian.Uint32(page)
		record = append(record, page[4:min(s.usable, 4+int(size)-len(record))]...)
	}
	return f(record)
}

// local is how many bytes of a row lie on its own page.
func (s *sqliteDB) local(size int) int {
	most := s.usable - 35
	if size <= most {
		return size
	}
	least := (s.usable-12)*32/255 - 23
	if k := least + (size-least)%(s.usable-4); k <= most {
		return k
	}
	return least
}

// column is one value of a record; data is nil for numbers.
type column struct {
	kind uint64
	data []byte
	raw  []byte
}

// integer is the value of a whole number, 0 for anything else.
func (c column) integer() int64 {
	if c.kind == 9 {
		return 1
	}
	if c.kind < 1 || c.kind > 6 || c.raw[0] >= 0x80 {
		return 0
	}
	v := int64(0)
	for _, b := range c.raw {
		v = v<<8 | int64(b)
	}
	return v
}

func parseRecord(b []byte) ([]column, error) {
	size, n := varint(b)
	if n == 0 || size > uint64(len(b)) || size < uint64(n) {
		return nil, damaged("a record header of %d bytes", size)
	}
	kinds, values := b[n:size], b[size:]
	var out []column
	for len(kinds) > 0 {
		kind, n := varint(kinds)
		if n == 0 {
			return nil, damaged("a record header ends early")
		}
		kinds = kinds[n:]
		length := serialSize(kind)
		if length > uint64(len(values)) {
			return nil, damaged("a column of %d bytes in %d", length, len(values))
		}
		c := column{kind: kind, raw: values[:length]}
		if kind >= 12 {
			c.data = c.raw
		}
		out = append(out, c)
		values = values[length:]
	}
	return out, nil
}

// serialSize is the length of a value by its serial type.
func serialSize(kind uint64) uint64 {
	switch {
	case kind >= 12:
		return (kind - 12) / 2
	case kind == 5:
		return 6
	case kind == 6, kind == 7:
		return 8
	case kind < 5:
		return kind
	}
	return 0
}

// varint reads sqlite's big-endian number of one to nine bytes; 0 bytes when
// it ends early.
func varint(b []byte) (uint64, int) {
	v := uint64(0)
	for i := range min(len(b), 9) {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
