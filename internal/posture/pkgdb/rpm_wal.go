// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"encoding/binary"
)

// sqlite's write-ahead log, chapter 4 of fileformat2.html: a header of 32
// bytes, then frames of 24 bytes and one page. A frame counts if its salts are
// those of the header, the running checksum fits and a commit follows.

const (
	walHeader      = 32
	walFrame       = 24
	walMagicLittle = 0x377f0682
	walMagicBig    = 0x377f0683
)

// walLog is where the log has the newest committed content of a page.
type walLog struct {
	file  *countingReaderAt
	frame map[uint32]int64
}

// readWAL indexes the committed frames. A log that is empty or from before
// the last reset has none.
func readWAL(file *countingReaderAt, pageSize int) (*walLog, error) {
	w := &walLog{file, make(map[uint32]int64)}
	if file.size < walHeader {
		return w, nil
	}
	h := make([]byte, walHeader)
	if _, err := file.ReadAt(h, 0); err != nil {
		return nil, err
	}
	var order binary.ByteOrder
	switch binary.BigEndian.Uint32(h) {
	case walMagicLittle:
		order = binary.LittleEndian
	case walMagicBig:
		order = binary.BigEndian
	default:
		return w, nil
	}
	sum := checksum(order, [2]uint32{}, h[:24])
	if sum != checksumAt(h[24:]) || binary.BigEndian.Uint32(h[8:]) != uint32(pageSize) {
		return w, nil
	}
	salts := [8]byte(h[16:24])
	pending := make(map[uint32]int64)
	frame := make([]byte, walFrame+pageSize)
	for at := int64(walHeader); at+int64(len(frame)) <= file.size; at += int64(len(frame)) {
		if _, err := file.ReadAt(frame, at); err != nil {
			return nil, err
		}
		sum = checksum(order, sum, frame[:8])
		sum = checksum(order, sum, frame[walFrame:])
		if [8]byte(frame[8:16]) != salts || sum != checksumAt(frame[16:]) {
			break
		}
		pending[binary.BigEndian.Uint32(frame)] = at + walFrame
		if binary.BigEndian.Uint32(frame[4:]) != 0 {
			for page, at := range pending {
				w.frame[page] = at
			}
			clear(pending)
		}
	}
	return w, nil
}

func checksumAt(b []byte) [2]uint32 {
	return [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

// checksum continues the log's running sum over whole pairs of words.
func checksum(order binary.ByteOrder, s [2]uint32, b []byte) [2]uint32 {
	for i := 0; i+8 <= len(b); i += 8 {
		s[0] += order.Uint32(b[i:]) + s[1]
		s[1] += order.Uint32(b[i+4:]) + s[0]
	}
	return s
}
