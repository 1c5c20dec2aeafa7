// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how much is written at a time, so that files are cut near
	// their size.
	chunk = 64 << 10
	// retry is how long an output rests after a write that failed.
	retry = time.Second
	// drain is how long Close waits for what is still to be written.
	drain = 200 * time.Millisecond
)

// OutputOptions say where events are written.
type OutputOptions struct {
	// Path is the file, or empty for stdout.
	Path string
	// FileMiB is the size at which a file is rotated, Backups how many rotated
	// ones are kept.
	FileMiB, Backups int
	Logger           *slog.Logger
}

// Output writes every event of a hub to stdout or to a file. What it cannot
// write waits in its queue and is then dropped and counted.
type Output struct {
	name   string
	sub    *Subscriber
	log    *slog.Logger
	writer io.WriteCloser
	stop   context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	failing bool // the last write failed and that was logged
}

// OpenOutput opens the output and begins to write. It fails if the file
// cannot be one: a directory, a socket, a block device, or in a directory that
// does not exist. A FIFO that nobody reads is waited for.
func OpenOutput(hub *Hub, options OutputOptions) (*Output, error) {
	o := &Output{name: OutputFile, log: options.Logger, done: make(chan struct{})}
	var err error
	if options.Path == "" {
		o.name = OutputStdout
		o.writer, err = openStdout()
	} else {
		o.writer, err = openPath(options)
	}
	if err != nil {
		return nil, err
	}
	o.sub = hub.Subscribe(o.name, Filter{}, DefaultQueue)
	ctx, cancel := context.WithCancel(context.Background())
	o.stop = cancel
	go o.run(ctx)
	return o, nil
}

// openStdout returns a descriptor of its own for stdout: a write to a pipe
// that nobody reads any more ends a Go program if it is made on descriptor 1.
func openStdout() (io.WriteCloser, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("stdout: %w", err)
	}
	return os.NewFile(uintptr(fd), "stdout"), nil
}

func openPath(options OutputOptions) (io.WriteCloser, error) {
	st, err := os.Stat(options.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && st.Mode().IsRegular():
		f := newRotatingFile(options)
		if err := f.open(); err != nil {
			return nil, err
		}
		return f, nil
	case err != nil:
		return nil, err
	case st.Mode()&fs.ModeNamedPipe != 0, st.Mode()&fs.ModeCharDevice != 0:
		return &specialFile{path: options.Path}, nil
	default:
		return nil, fmt.Errorf("%s: is no file, FIFO or character device", options.Path)
	}
}

func (o *Output) run(ctx context.Context) {
	defer close(o.done)
	for {
		batch, err := o.sub.Next(ctx)
		if err != nil {
			// One last look at what came meanwhile.
			batch = o.sub.pending()
		}
		o.write(ctx, batch)
		if err != nil {
			return
		}
	}
}

// write writes all of a batch, however long that takes. When ctx has ended,
// it gives up at the first failure and counts the rest.
func (o *Output) write(ctx context.Context, batch []byte) {
	for len(batch) > 0 {
		n, err := o.writer.Write(batch[:firstLines(batch)])
		torn := n > 0 && batch[n-1] != '\n'
		batch = batch[n:]
		o.report(err)
		if err == nil {
			continue
		}
		if _, ok := o.writer.(*specialFile); ok && torn {
			// The next reader of a FIFO is another one: begin with a whole line.
			batch = batch[bytes.IndexByte(batch, '\n')+1:]
			o.sub.dropped.Add(1)
		}
		select {
		case <-ctx.Done():
			o.sub.dropped.Add(events(batch))
			return
		case <-time.After(retry):
		}
	}
}

// firstLines is how many bytes the lines take that fit in a chunk, at least
// one line.
func firstLines(batch []byte) int {
	if len(batch) <= chunk {
		return len(batch)
	}
	if i := bytes.LastIndexByte(batch[:chunk], '\n'); i >= 0 {
		return i + 1
	}
	return bytes.IndexByte(batch, '\n') + 1
}

// lostName is how a record of a gap is known. No text of a process holds it:
// quotes inside of a value are escaped.
var lostName = []byte(`"event.name":"` + eventPrefix + KindLost + `"`)

// events counts the lines that are events: a record of a gap is none, what it
// stands for was counted before.
func events(batch []byte) uint64 {
	return uint64(bytes.Count(batch, []byte{'\n'}) - bytes.Count(batch, lostName))
}

// report logs the first failure of a row, and its end.
func (o *Output) report(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil && !o.failing:
		o.log.Warn("Cannot write events; trying every second, dropping what does not fit the queue", "output", o.name, "err", err)
	case err == nil && o.failing:
		o.log.Info("Events are written again", "output", o.name)
	}
	o.failing = err != nil
}

// Close writes what still waits, for drain at most, and closes the output. A
// writer that hangs is left behind: the process is about to end.
func (o *Output) Close() {
	o.sub.Close()
	o.stop()
	select {
	case <-o.done:
		_ = o.writer.Close() // every write was looked at
	case <-time.After(drain):
		o.log.Warn("Events were left unwritten", "output", o.name)
	}
}

// pending is what Next would return, without waiting.
func (s *Subscriber) pending() []byte {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	batch, err := s.Next(done)
	if err != nil {
		return nil
	}
	return batch
}

// specialFile is a FIFO or a character device. It is opened without waiting
// for a reader and again after a failure, since the reader of a FIFO may come
// and go.
type specialFile struct {
	path string
	file *os.File
}

func (s *specialFile) Write(p []byte) (int, error) {
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	n, err := s.file.Write(p)
	if err != nil {
		_ = s.Close()
	}
	return n, err
}

func (s *specialFile) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// directoryOf is the existing directory of a file to be made.
func directoryOf(path string) error {
	dir := filepath.Dir(path)
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: is no directory", dir)
	}
	return nil
}
