// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func outputTo(t *testing.T, hub *Hub, path string) *Output {
	t.Helper()
	o, err := OpenOutput(hub, OutputOptions{Path: path, FileMiB: 1, Backups: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// publish sends n events and fails if that waits for anything.
func publish(t *testing.T, hub *Hub, n int) {
	t.Helper()
	ev := testEvents()[1]
	start := time.Now()
	for range n {
		hub.Publish(&ev, nil)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("publishing %d events took %v", n, took)
	}
}

func (h *Hub) droppedTo(output string) uint64 {
	return h.dropped[slices.Index(outputs, output)].Load()
}

// eventually waits for a condition for some seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// lines reads the records of a file, each of them whole.
func lines(t *testing.T, path string) []Record {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	for line := range bytes.Lines(data) {
		out = append(out, decode(t, line))
	}
	return out
}

func TestOutputFile(t *testing.T) {
	t.Parallel()
	hub, path := NewHub(), filepath.Join(t.TempDir(), "events.log")
	o := outputTo(t, hub, path)
	publish(t, hub, 100)
	o.Close()
	publish(t, hub, 1) // after the end
	if got := lines(t, path); len(got) != 100 {
		t.Errorf("%d lines", len(got))
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	// A second start appends.
	o = outputTo(t, hub, path)
	publish(t, hub, 1)
	o.Close()
	if got := lines(t, path); len(got) != 101 || hub.droppedTo(OutputFile) != 0 {
		t.Errorf("%d lines, %d dropped", len(got), hub.droppedTo(OutputFile))
	}
}

func TestOutputRotates(t *testing.T) {
	t.Parallel()
	hub, dir := NewHub(), t.TempDir()
	path := filepath.Join(dir, "events.log")
	o := outputTo(t, hub, path)
	for range 20 { // some 360 bytes each, 1 MiB for each file
		publish(t, hub, 1000)
		eventually(t, "written", func() bool {
			o.sub.mu.Lock()
			defer o.sub.mu.Unlock()
			return len(o.sub.queue) == 0
		})
	}
	o.Close()
	var files []string
	eventually(t, "two rotated files are kept", func() bool {
		files, _ = filepath.Glob(filepath.Join(dir, "events*.log"))
		return len(files) == 3
	})
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil || st.Size() > 1<<20 || st.Mode() != 0o600 {
			t.Errorf("%s: %d bytes, %v, %v", f, st.Size(), st.Mode(), err)
		}
		lines(t, f)
	}
	if d := hub.droppedTo(OutputFile); d != 0 {
		t.Errorf("%d dropped", d)
	}
}

func TestOutputFileMoves(t *testing.T) {
	t.Parallel()
	hub, dir := NewHub(), filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "events.log")
	o := outputTo(t, hub, path)
	defer o.Close()
	publish(t, hub, 1)
	written := func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Size() > 0
	}
	eventually(t, "first file", written)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	publish(t, hub, 1)
	eventually(t, "file after a rename", written)
	if n := len(lines(t, path)) + len(lines(t, path+".1")); n != 2 {
		t.Errorf("%d lines", n)
	}
	// The directory goes and comes back: what does not fit the queue is lost,
	// the rest is written.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	publish(t, hub, 1)
	eventually(t, "the failure is noticed", o.isFailing)
	publish(t, hub, 5000)
	if hub.droppedTo(OutputFile) == 0 {
		t.Error("nothing was dropped")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made again: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the queue and its gap are written", func() bool {
		data, _ := os.ReadFile(path)
		return bytes.Contains(data, []byte("security.lost")) && data[len(data)-1] == '\n'
	})
	got := lines(t, path)
	gap := got[len(got)-1]
	if uint64(len(got)-1)+gap.LostRecords != 5001 || gap.LostRecords != hub.droppedTo(OutputFile) {
		t.Errorf("%d lines, %d lost, %d counted", len(got)-1, gap.LostRecords, hub.droppedTo(OutputFile))
	}
}

func (o *Output) isFailing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing
}

func TestOutputFullDisk(t *testing.T) {
	t.Parallel()
	hub := NewHub()
	o := outputTo(t, hub, "/dev/full")
	publish(t, hub, 5000)
	eventually(t, "the failure is noticed", o.isFailing)
	publish(t, hub, 1)
	start := time.Now()
	o.Close()
	if took := time.Since(start); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	if d := hub.droppedTo(OutputFile); d != 5001 {
		t.Errorf("%d dropped, want 5001", d)
	}
}

func TestOutputFIFO(t *testing.T) {
	t.Parallel()
	hub, path := NewHub(), filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	o := outputTo(t, hub, path)
	publish(t, hub, 5000) // nobody reads
	if hub.droppedTo(OutputFile) == 0 {
		t.Error("nothing was dropped")
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// Everything that was published arrives or is in the gap.
	if err := reader.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(patient{reader})
	var got uint64
	for got < 5000 {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatalf("%v after %d", err, got)
		}
		if rec := decode(t, line); rec.Kind() == KindLost {
			got += rec.LostRecords
		} else {
			got++
		}
	}
	// A reader that is there and does not read.
	publish(t, hub, 10000)
	start := time.Now()
	o.Close()
	if took := time.Since(start); took > time.Second {
		t.Errorf("closing took %v", took)
	}
}

// patient reads a FIFO that nobody has opened for writing yet.
type patient struct{ f *os.File }

func (p patient) Read(b []byte) (int, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := p.f.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) || time.Now().After(deadline) {
			return n, err
		}
	}
}

func TestOutputRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                             dir + ": is no file, FIFO or character device",
		filepath.Join(dir, "a", "b"):    "stat " + filepath.Join(dir, "a") + ": no such file or directory",
		filepath.Join(dir, "f", "b"):    "stat " + filepath.Join(dir, "f", "b") + ": not a directory",
		"/proc/" + "self/nope/file.log": "stat /proc/self/nope: no such file or directory",
	} {
		if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenOutput(NewHub(), OutputOptions{Path: path, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// tornWriter takes some bytes and then refuses, once.
type tornWriter struct {
	strings.Builder
	room int
}

func (w *tornWriter) Write(p []byte) (int, error) {
	if w.room >= 0 && len(p) > w.room {
		n, _ := w.Builder.Write(p[:w.room])
		w.room = -1
		return n, unix.ENOSPC
	}
	return w.Builder.Write(p)
}

func (*tornWriter) Close() error { return nil }

func TestOutputFinishesTornLine(t *testing.T) {
	t.Parallel()
	hub, w := NewHub(), &tornWriter{room: 5}
	o := &Output{name: OutputFile, log: slog.New(slog.DiscardHandler), writer: w, sub: hub.Subscribe(OutputFile, Filter{}, 100)}
	o.write(t.Context(), []byte("first\nsecond\n"))
	if w.String() != "first\nsecond\n" || o.isFailing() {
		t.Errorf("wrote %q", w.String())
	}
}

func TestFirstLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", chunk) + "\n"
	for _, c := range []struct {
		in   string
		want int
	}{
		{"a\n", 2}, {long, len(long)}, {long + "a\n", len(long)}, {"a\n" + long, 2},
		{strings.Repeat("ab\n", chunk), chunk - chunk%3},
	} {
		if got := firstLines([]byte(c.in)); got != c.want {
			t.Errorf("%d bytes: %d, want %d", len(c.in), got, c.want)
		}
	}
}
