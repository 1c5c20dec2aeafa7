// SPDX-License-Identifier: Apache-2.0

package pkgdb

import "encoding/binary"

// rpm's own database (lib/backend/ndb/rpmpkg.c): a header of 32 bytes, slots
// of 16 bytes to the end of the slot pages, and blobs in blocks of 16 bytes,
// all numbers little-endian.

const (
	ndbMagic     = 'R' | 'p'<<8 | 'm'<<16 | 'P'<<24
	ndbSlotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	ndbBlobMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24
	ndbPage      = 4096
	ndbBlock     = 16
	ndbHeader    = 32
)

func eachNDB(db, _ *countingReaderAt, header func([]byte) error) error {
	h := make([]byte, ndbHeader)
	if _, err := db.ReadAt(h, 0); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(h) != ndbMagic || binary.LittleEndian.Uint32(h[4:]) != 0 {
		return damaged("it is not an ndb database of version 0")
	}
	size := int64(binary.LittleEndian.Uint32(h[12:])) * ndbPage
	if size > db.size || size > maxText {
		return damaged("slots of %d bytes in a file of %d", size, db.size)
	}
	slots := make([]byte, max(size-ndbHeader, 0))
	if _, err := db.ReadAt(slots, ndbHeader); len(slots) > 0 && err != nil {
		return err
	}
	for ; len(slots) >= ndbBlock; slots = slots[ndbBlock:] {
		if binary.LittleEndian.Uint32(slots) != ndbSlotMagic {
			return damaged("a slot without its mark")
		}
		index, block := binary.LittleEndian.Uint32(slots[4:]), binary.LittleEndian.Uint32(slots[8:])
		if index == 0 || block == 0 {
			continue
		}
		b, err := ndbBlob(db, index, int64(block)*ndbBlock)
		if err != nil {
			return err
		}
		if err := header(b); err != nil {
			return err
		}
	}
	return nil
}

func ndbBlob(db *countingReaderAt, index uint32, at int64) ([]byte, error) {
	h := make([]byte, ndbBlock)
	if _, err := db.ReadAt(h, at); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(h[12:]))
	if binary.LittleEndian.Uint32(h) != ndbBlobMagic || binary.LittleEndian.Uint32(h[4:]) != index {
		return nil, damaged("package %d is not where its slot says", index)
	}
	if size > maxRPMHeader || at+ndbBlock+size > db.size {
		return nil, damaged("package %d of %d bytes", index, size)
	}
	b := make([]byte, size)
	_, err := db.ReadAt(b, at+ndbBlock)
	return b, err
}
