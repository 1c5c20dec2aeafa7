// SPDX-License-Identifier: Apache-2.0

package pkgdb

import "encoding/binary"

// A Berkeley DB hash file (db_page.h of libdb 5.3): pages in sequence, those
// of a hash hold pairs of key and value. A value above a quarter of a page
// lies on a chain of overflow pages. The key is rpm's number of the package in
// the byte order of the host; 0 is not a package but the next free number.

const (
	bdbMagic    = 0x00061561
	bdbMeta     = 512
	bdbHead     = 26
	bdbUnsorted = 2
	bdbOverflow = 7
	bdbHashMeta = 8
	bdbHash     = 13
	bdbInline   = 1
	bdbOffPage  = 3
)

type bdbFile struct {
	file  *countingReaderAt
	order binary.ByteOrder
	size  int
	last  uint32
}

func eachBDB(db, _ *countingReaderAt, header func([]byte) error) error {
	f, err := openBDB(db)
	if err != nil {
		return err
	}
	for n := uint32(1); n <= f.last && n != 0; n++ {
		page, err := f.page(n)
		if err != nil {
			return err
		}
		if kind := page[25]; kind != bdbHash && kind != bdbUnsorted {
			continue
		}
		if err := f.pairs(page, header); err != nil {
			return err
		}
	}
	return nil
}

func openBDB(db *countingReaderAt) (*bdbFile, error) {
	h := make([]byte, bdbMeta)
	if _, err := db.ReadAt(h, 0); err != nil {
		return nil, err
	}
	f := &bdbFile{file: db, order: binary.LittleEndian}
	if f.order.Uint32(h[12:]) != bdbMagic {
		f.order = binary.BigEndian
	}
	if f.order.Uint32(h[12:]) != bdbMagic || h[25] != bdbHashMeta || h[24] != 0 {
		return nil, damaged("it is not a Berkeley DB hash file")
	}
	size := f.order.Uint32(h[20:])
	f.last = f.order.Uint32(h[32:])
	if size < 512 || size > 65536 || size&(size-1) != 0 {
		return nil, damaged("its page size is %d", size)
	}
	f.size = int(size)
	if pages := db.size / int64(size); int64(f.last) >= pages {
		return nil, damaged("last page %d of %d", f.last, pages)
	}
	return f, nil
}

func (f *bdbFile) page(n uint32) ([]byte, error) {
	b := make([]byte, f.size)
	_, err := f.file.ReadAt(b, int64(n)*int64(f.size))
	return b, err
}

// pairs calls header with each value of a hash page that is a package.
func (f *bdbFile) pairs(page []byte, header func([]byte) error) error {
	entries := int(f.order.Uint16(page[20:]))
	if entries%2 != 0 || bdbHead+2*entries > len(page) {
		return damaged("a page of %d items", entries)
	}
	for i := 0; i < entries; i += 2 {
		key, err := f.item(page, i)
		if err != nil {
			return err
		}
		if key[0] == bdbInline && len(key) == 5 && f.order.Uint32(key[1:]) == 0 {
			continue
		}
		value, err := f.item(page, i+1)
		if err != nil {
			return err
		}
		switch value[0] {
		case bdbInline:
			err = header(value[1:])
		case bdbOffPage:
			err = f.chain(value, header)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// item is one key or value with its type in the first byte. Items fill the
// page from its end, so one reaches to where the one before begins.
func (f *bdbFile) item(page []byte, i int) ([]byte, error) {
	start, end := int(f.order.Uint16(page[bdbHead+2*i:])), len(page)
	if i > 0 {
		end = int(f.order.Uint16(page[bdbHead+2*(i-1):]))
	}
	if start < bdbHead || start >= end || end > len(page) {
		return nil, damaged("an item from %d to %d of a page", start, end)
	}
	return page[start:end], nil
}

// chain puts together a value that lies on overflow pages.
func (f *bdbFile) chain(item []byte, header func([]byte) error) error {
	if len(item) < 12 {
		return damaged("an overflow item of %d bytes", len(item))
	}
	next, size := f.order.Uint32(item[4:]), f.order.Uint32(item[8:])
	if size > maxRPMHeader || int64(size) > f.file.size {
		return damaged("a package of %d bytes", size)
	}
	b := make([]byte, 0, size)
	for len(b) < int(size) {
		if next == 0 || next > f.last {
			return damaged("a package ends after %d of %d bytes", len(b), size)
		}
		page, err := f.page(next)
		if err != nil {
			return err
		}
		held := int(f.order.Uint16(page[22:]))
		if page[25] != bdbOverflow || held == 0 || held > f.size-bdbHead {
			return damaged("page %d is no part of a package", next)
		}
		b = append(b, page[bdbHead:bdbHead+min(held, int(size)-len(b))]...)
		next = f.order.Uint32(page[16:])
	}
	return header(b)
}
