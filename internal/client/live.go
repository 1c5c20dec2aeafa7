// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"security-exporter/internal/api"
)

// What a terminal is told: the other screen and no cursor, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// listKeys switch between the lists. q quits, and so do Ctrl-C, Ctrl-D and
// Ctrl-\, which are no signals in raw mode.
var listKeys = map[byte]string{
	'e': "exec", 'c': "connect", 'C': "connect_process", 'f': "file", 'F': "file_process", 'p': "privilege",
}

const quitKeys = "q\x03\x04\x1c"

// picture is what the screen shows.
type picture struct {
	by     string
	answer api.TopAnswer
	err    error
}

// live shows the list until a key or ctx ends it. The terminal is left as it
// was found, whatever happens.
func live(ctx context.Context, c *connection, o topOptions, in, out *os.File) error {
	// A first answer before the screen changes: errors stay readable.
	_, answer, err := askTop(ctx, c, o)
	if err != nil {
		return err
	}
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		_, _ = io.WriteString(out, leaveScreen) // the terminal may be gone
		_ = term.Restore(int(in.Fd()), state)
	}()
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)

	s := &screen{picture: picture{by: o.by, answer: answer}, lists: make(chan string, 1), pictures: make(chan picture)}
	go s.ask(ctx, c, o)
	return s.show(ctx, o, out, readKeys(ctx, in), resized)
}

// screen joins the keyboard, the exporter and the terminal.
type screen struct {
	picture
	lists    chan string  // the list that is wanted now
	pictures chan picture // what the exporter answered
}

// show draws until a key or ctx ends it.
func (s *screen) show(ctx context.Context, o topOptions, out *os.File, keys <-chan byte, resized <-chan os.Signal) error {
	for {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width < 1 || height < 1 {
			width, height = 80, 24
		}
		if _, err := io.WriteString(out, draw(s.picture, o, width, height)); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case s.picture = <-s.pictures:
		case key, ok := <-keys:
			if !ok || strings.IndexByte(quitKeys, key) >= 0 {
				return nil
			}
			if by, ok := listKeys[key]; ok && by != s.by {
				s.picture = picture{by: by}
				select {
				case <-s.lists: // an older wish
				default:
				}
				s.lists <- by
			}
		}
	}
}

// ask asks the exporter every interval, and at once for another list.
func (s *screen) ask(ctx context.Context, c *connection, o topOptions) {
	ticks := time.NewTicker(o.interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o.by = <-s.lists:
			ticks.Reset(o.interval)
		case <-ticks.C:
		}
		_, answer, err := askTop(ctx, c, o)
		if len(s.lists) > 0 {
			continue // nobody wants this one any more
		}
		select {
		case <-ctx.Done():
			return
		case s.pictures <- picture{by: o.by, answer: answer, err: err}:
		}
	}
}

// readKeys hands over what is typed. Its goroutine ends with the program: a
// read from a terminal cannot be called off.
func readKeys(ctx context.Context, in io.Reader) <-chan byte {
	keys := make(chan byte)
	go func() {
		defer close(keys)
		var b [1]byte
		var inside sequence
		for {
			if _, err := in.Read(b[:]); err != nil {
				return
			}
			if inside.holds(b[0]) {
				continue
			}
			select {
			case keys <- b[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	return keys
}

// sequence follows what keys such as the arrows send: ESC [ or ESC O, then
// parameters, then a final byte (ECMA-48, 5.4).
type sequence uint8

const (
	outside sequence = iota
	escaped
	parameters
)

// holds says whether the next byte belongs to a sequence.
func (s *sequence) holds(b byte) bool {
	switch {
	case b == 0x1b:
		*s = escaped
	case *s == escaped && (b == '[' || b == 'O'):
		*s = parameters
	case *s == parameters && b >= ' ' && b < 0x40:
	case *s == parameters && b >= 0x40 && b < 0x7f:
		*s = outside
	default:
		*s = outside
		return false
	}
	return true
}

// draw is the whole screen as the terminal takes it, in raw mode.
func draw(p picture, o topOptions, width, height int) string {
	back := "since the start"
	if s := p.answer.WindowSeconds; s > 0 {
		back = "last " + time.Duration(s*float64(time.Second)).String()
	}
	lines := []string{fmt.Sprintf("security-exporter top: %s, %s, every %v    q quit  lists: e c C f F p", p.by, back, o.interval), ""}
	switch {
	case p.err != nil:
		lines = append(lines, "no answer, trying again: "+p.err.Error())
	case p.answer.By != p.by:
		lines[0] = "security-exporter top: " + p.by + " ..."
	default:
		lines = append(lines, table(p.answer, width)...)
		if len(p.answer.Entries) == 0 {
			lines = append(lines, "nothing yet")
		}
	}
	var b strings.Builder
	b.WriteString(toTop)
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(fit(line, width) + clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}
