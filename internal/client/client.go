// SPDX-License-Identifier: Apache-2.0

// Package client is the commands status, top and events: they ask a running
// exporter over its local API and show people, or scripts, the answer.
//
// What they show comes from processes that may be hostile: every text is
// cleaned before it reaches a terminal.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"

	"security-exporter/internal/buildinfo"
	"security-exporter/internal/config"
)

// IO is what a command reads and writes. It is live only on a terminal, that
// is, when In and Out are *os.File and one.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// command is one subcommand: flags declares its flags and returns what runs
// it once they are parsed.
type command struct {
	name, help string
	flags      func(*kingpin.Application, *common) func(context.Context, IO) error
}

// common are the flags that every command has.
type common struct {
	address *string
	json    *bool
}

func commands() []command {
	return []command{
		{"status", "Shows what a running exporter does: its probes, its collectors, what was lost.", statusCommand},
		{"top", "Shows who does most of it: executables, remote addresses, files, processes that change privileges. " +
			"On a terminal it is live: q quits, e c C f F p switch between the lists.", topCommand},
		{"events", "Follows the detail events of a running exporter. What this reader is too slow for is counted and shown.", eventsCommand},
	}
}

// usageError is the caller's fault: exit code 2.
type usageError struct{ error }

// IsCommand says whether a first argument names a command of this package.
func IsCommand(arg string) bool {
	for _, c := range commands() {
		if c.name == arg {
			return true
		}
	}
	return false
}

// Run runs the command args[0] and returns its exit code: 0, 1 for a failure
// and 2 for a bad flag. It ends with 0 when ctx does, or with a hang-up.
func Run(ctx context.Context, args []string, std IO) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	err := errors.New("no such command")
	for _, c := range commands() {
		if c.name == args[0] {
			err = c.run(ctx, args[1:], std)
		}
	}
	if err == nil || ctx.Err() != nil {
		return 0
	}
	fmt.Fprintf(std.Err, "%s %s: %s\n", buildinfo.Name, args[0], clean(err.Error()))
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

func (c command) run(ctx context.Context, args []string, std IO) error {
	app := kingpin.New(buildinfo.Name+" "+c.name, c.help)
	printed := false
	app.UsageWriter(std.Out).ErrorWriter(std.Err).Terminate(func(int) { printed = true })
	app.HelpFlag.Short('h')
	flags := &common{
		address: app.Flag("api.address", "Where the exporter's local API listens: the path of its socket, or HOST:PORT.").Default(config.DefaultAPIAddress).String(),
		json:    app.Flag("json", "Print JSON, as the API has it.").Default("false").Bool(),
	}
	act := c.flags(app, flags)
	args, err := config.Normalise(args, app)
	if err != nil {
		return usageError{err}
	}
	_, err = app.Parse(args)
	if printed {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	return act(ctx, std)
}

// terminal returns w or r as a file if it is a terminal.
func terminal(stream any, isTerminal func(fd int) bool) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && isTerminal(int(f.Fd()))
}

// oneOf words the refusal of a value that is not in a list.
func oneOf(flag, value string, allowed []string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	return usageError{fmt.Errorf("--%s=%s: want %s", flag, clean(value), strings.Join(allowed, ", "))}
}
