// SPDX-License-Identifier: Apache-2.0

package version

import (
	"encoding/binary"
	"errors"
	"io"
)

// The part of an ELF file that must be known before debug/elf may have it, and
// the notes: elf(5).

const (
	notePackage = 0xcafe1a7e

	ptNote        = 4
	shfCompressed = 1 << 11
	maxProgs      = 128
)

type elfFile struct {
	order binary.ByteOrder
	notes []elfNote
	// packedNames: the table of section names is compressed or unusual.
	// debug/elf would unpack it, however large it becomes.
	packedNames bool
}

type elfNote struct {
	offset, size int64
	align        int
}

var errNotELF = errors.New("not an ELF file")

func parseELF(r io.ReaderAt) (*elfFile, error) {
	h := make([]byte, 64)
	if _, err := r.ReadAt(h, 0); err != nil {
		return nil, err
	}
	if string(h[:4]) != "\x7fELF" || h[4] != 1 && h[4] != 2 || h[5] != 1 && h[5] != 2 {
		return nil, errNotELF
	}
	e := &elfFile{order: binary.LittleEndian}
	if h[5] == 2 {
		e.order = binary.BigEndian
	}
	wide := h[4] == 2
	// Offsets of e_phoff, e_shoff and e_phentsize in both classes.
	phoff, shoff, sizes := int64(e.order.Uint32(h[28:])), int64(e.order.Uint32(h[32:])), h[42:]
	if wide {
		phoff, shoff, sizes = int64(e.order.Uint64(h[32:])), int64(e.order.Uint64(h[40:])), h[54:]
	}
	phentsize, phnum := int(e.order.Uint16(sizes)), int(e.order.Uint16(sizes[2:]))
	shentsize, names := int(e.order.Uint16(sizes[4:])), int(e.order.Uint16(sizes[8:]))
	if err := e.readProgs(r, wide, phoff, phentsize, min(phnum, maxProgs)); err != nil {
		return nil, err
	}
	e.packedNames = packedNames(r, e.order, wide, shoff, shentsize, names)
	return e, nil
}

func (e *elfFile) readProgs(r io.ReaderAt, wide bool, offset int64, size, n int) error {
	least := 32
	if wide {
		least = 56
	}
	if n == 0 || size < least || size > 4096 || offset < 0 {
		return nil
	}
	b := make([]byte, size*n)
	if _, err := r.ReadAt(b, offset); err != nil {
		return err
	}
	for ; len(b) >= size; b = b[size:] {
		if e.order.Uint32(b) != ptNote {
			continue
		}
		note := elfNote{int64(e.order.Uint32(b[4:])), int64(e.order.Uint32(b[16:])), int(e.order.Uint32(b[28:]))}
		if wide {
			note = elfNote{int64(e.order.Uint64(b[8:])), int64(e.order.Uint64(b[32:])), int(e.order.Uint64(b[48:]))}
		}
		if note.offset >= 0 && note.size > 0 {
			e.notes = append(e.notes, note)
		}
	}
	return nil
}

func packedNames(r io.ReaderAt, order binary.ByteOrder, wide bool, offset int64, size, index int) bool {
	if offset == 0 || index == 0 {
		return false
	}
	if offset < 0 || size < 40 || index >= 0xff00 {
		return true
	}
	b := make([]byte, 16)
	if _, err := r.ReadAt(b, offset+int64(size)*int64(index)); err != nil {
		return true
	}
	flags := uint64(order.Uint32(b[8:]))
	if wide {
		flags = order.Uint64(b[8:])
	}
	return flags&shfCompressed != 0
}

// findNote returns the content of the note of this owner and type. Notes are
// padded to four bytes, or to eight in segments that say so.
func findNote(b []byte, order binary.ByteOrder, align int, owner string, kind uint32) []byte {
	if align != 8 {
		align = 4
	}
	pad := func(n int64) int64 { return (n + int64(align) - 1) &^ (int64(align) - 1) }
	for len(b) >= 12 {
		nameSize, descSize, t := int64(order.Uint32(b)), int64(order.Uint32(b[4:])), order.Uint32(b[8:])
		desc := pad(12 + nameSize)
		if 12+nameSize > int64(len(b)) || desc+descSize > int64(len(b)) {
			return nil
		}
		if t == kind && string(b[12:12+nameSize]) == owner+"\x00" {
			return b[desc : desc+descSize]
		}
		b = b[min(pad(desc+descSize), int64(len(b))):]
	}
	return nil
}
