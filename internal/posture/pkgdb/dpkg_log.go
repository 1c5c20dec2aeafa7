// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
)

// Reads /var/log/dpkg.log, rotated and compressed ones included, for the last
// "install" or "upgrade" line: dpkg(1). dpkg keeps no time in its database.

const (
	dpkgLog = "/var/log/dpkg.log"
	// logTail is how much of the end of a log is looked at, logPlain how much
	// a compressed one may unpack to, in bytes.
	logTail  = 4 << 20
	logPlain = 64 << 20
)

// dpkgPatched is the newest install or upgrade of the logs; where they tell
// none, the newest list of files, which dpkg writes when it unpacks. Zero if
// neither is there.
func dpkgPatched(ctx context.Context, t *hostfs.Tree) (time.Time, error) {
	zone, err := localZone(ctx, t)
	if err != nil {
		return time.Time{}, err
	}
	logs, err := t.Glob(ctx, dpkgLog+"*")
	if err != nil {
		return time.Time{}, err
	}
	slices.SortFunc(logs, func(a, b string) int { return rotation(a) - rotation(b) })
	for _, name := range logs {
		if rotation(name) < 0 {
			continue
		}
		at, err := hostfs.View(ctx, t, name, func(f *os.File, i hostfs.Info) (time.Time, error) {
			return lastInLog(f, i.Size, strings.HasSuffix(name, ".gz"), zone)
		})
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil || !at.IsZero() {
			return at, err
		}
	}
	return newestList(ctx, t)
}

// rotation is the age of a rotated log: 0 for dpkg.log, 2 for dpkg.log.2.gz,
// and -1 for anything else.
func rotation(name string) int {
	rest := strings.TrimPrefix(name, dpkgLog)
	rest = strings.TrimSuffix(rest, ".gz")
	if rest == "" {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, "."), 10, 16)
	if err != nil || !strings.HasPrefix(rest, ".") {
		return -1
	}
	return int(n)
}

func lastInLog(f io.ReadSeeker, size int64, compressed bool, zone *time.Location) (time.Time, error) {
	if !compressed {
		if size > logTail {
			if _, err := f.Seek(size-logTail, io.SeekStart); err != nil {
				return time.Time{}, err
			}
		}
		return parseDpkgLog(io.LimitReader(f, logTail), zone)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return time.Time{}, err
	}
	return parseDpkgLog(io.LimitReader(z, logPlain), zone)
}

// parseDpkgLog returns the time of the last line that installs or upgrades.
// The log has the local time of the host without its offset.
func parseDpkgLog(r io.Reader, zone *time.Location) (time.Time, error) {
	var last string
	buf := make([]byte, 64<<10)
	var rest []byte
	for {
		n, err := r.Read(buf)
		rest = append(rest, buf[:n]...)
		cut := bytes.LastIndexByte(rest, '\n') + 1
		if s := lastPatchLine(rest[:cut]); s != "" {
			last = s
		}
		rest = append(rest[:0], rest[cut:]...)
		if len(rest) > len(buf) {
			rest = rest[:0]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	if last == "" {
		return time.Time{}, nil
	}
	return time.ParseInLocation(time.DateTime, last, zone)
}

// lastPatchLine is the time of the last install or upgrade in whole lines:
// "2024-05-01 10:11:12 upgrade pkg:amd64 1.0 1.1".
func lastPatchLine(lines []byte) string {
	last := ""
	for line := range bytes.Lines(lines) {
		const stamp = len(time.DateTime)
		if len(line) < stamp+1 || line[stamp] != ' ' {
			continue
		}
		action := line[stamp+1:]
		if !bytes.HasPrefix(action, []byte("upgrade ")) && !bytes.HasPrefix(action, []byte("install ")) {
			continue
		}
		if _, err := time.Parse(time.DateTime, string(line[:stamp])); err == nil {
			last = string(line[:stamp])
		}
	}
	return last
}

// newestList is the newest modification of a list of files.
func newestList(ctx context.Context, t *hostfs.Tree) (time.Time, error) {
	lists, err := t.Glob(ctx, dpkgDir+"info/*.list")
	var newest time.Time
	for _, name := range lists {
		i, err := t.Lstat(ctx, name)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return time.Time{}, err
		}
		if i.ModTime.After(newest) {
			newest = i.ModTime
		}
	}
	return newest, err
}

// localZone is the time zone of the tree, UTC when it has none: the exporter
// may run in a container with another one.
func localZone(ctx context.Context, t *hostfs.Tree) (*time.Location, error) {
	b, err := t.ReadLimit(ctx, "/etc/localtime", hostfs.ValueLimit)
	if errors.Is(err, hostfs.ErrNotExist) {
		return time.UTC, nil
	}
	if err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData("host", b)
}
