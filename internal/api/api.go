// SPDX-License-Identifier: Apache-2.0

// Package api serves what the exporter sees to programs on the same host, as
// JSON over HTTP on a Unix socket: its status, the lists of the busiest, and
// the stream of detail events. docs/events.md describes it.
//
// The socket is its owner's alone. Clients are bounded in number, time and
// size, and one that reads slowly holds up nobody.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"

	"security-exporter/internal/config"
	"security-exporter/internal/stream"
)

const (
	// MaxConnections is how many clients are served at a time; more wait.
	MaxConnections = 64
	// MaxStreams is how many of them may follow events.
	MaxStreams = 16

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = time.Minute
	maxHeaderBytes    = 16 << 10
	// stallTimeout is how long a client of the stream may read nothing before
	// it is cut off.
	stallTimeout = 5 * time.Minute
	keepAlive    = 15 * time.Second
	closeTimeout = 300 * time.Millisecond
)

// StatusSource says how the exporter is. It must be safe for concurrent use.
type StatusSource interface {
	Status() (Status, error)
}

// TopSource has the lists of the busiest. It must be safe for concurrent use.
type TopSource interface {
	// Top returns at most n entries of a list, the most frequent first. by is
	// one of TopBy; window is a time up to Options.TopWindow, or 0 for since
	// the start.
	Top(by string, n int, window time.Duration) (Top, error)
}

// Top is a list of the busiest.
type Top struct {
	// Window is the time that the list covers, 0 for since the start.
	Window time.Duration
	// Total is the sum of all counts, also of keys that are not listed.
	Total   uint64
	Entries []Entry
}

// Entry is one key of a list of the busiest. Key and Container may hold any
// bytes; they become valid UTF-8 on their way out.
type Entry struct {
	Key string `json:"key"`
	// Container is empty for what runs on the host itself.
	Container string `json:"container"`
	Count     uint64 `json:"count"`
	// Error is how far Count may be from the truth.
	Error uint64 `json:"error"`
}

// Options configure a Server.
type Options struct {
	// Address says where to listen: one of Socket and TCP is set.
	Address config.API
	// Web has the TLS and the users of a TCP address.
	Web    web.FlagConfig
	Status StatusSource
	// Top is nil if there are no lists; TopOff says why.
	Top    TopSource
	TopOff string
	// TopN and TopWindow are the defaults, TopCapacity and TopWindow the most
	// that may be asked for.
	TopN, TopCapacity int
	TopWindow         time.Duration
	// Hub is nil if there are no events; EventsOff says why.
	Hub       *stream.Hub
	EventsOff string
	Logger    *slog.Logger
}

// TopBy are the lists: executables by exec, remote addresses and executables
// by connection, files and executables by access, executables by change of
// privilege.
func TopBy() []string {
	return []string{"exec", "connect", "connect_process", "file", "file_process", "privilege"}
}

// Server serves from Listen to Close.
type Server struct {
	opts     Options
	http     *http.Server
	stop     context.CancelFunc
	socket   *socket // nil for TCP
	listener net.Listener
	serving  sync.WaitGroup
}

// New returns a server that does not listen yet.
func New(opts Options) *Server {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{opts: opts, stop: stop}
	s.http = &http.Server{
		Handler:           newHandler(opts),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
		// Streams end when the server does.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	return s
}

// Listen binds the address and begins to serve. It fails, and leaves
// everything as it is, if the address is in use or the path is not free.
func (s *Server) Listen() error {
	var err error
	if s.opts.Address.Socket != "" {
		s.socket, err = listenSocket(s.opts.Address.Socket)
		if err != nil {
			return err
		}
		s.listener = s.socket.listener
	} else {
		s.listener, err = listenTCP(s.opts.Address.TCP, *s.opts.Web.WebConfigFile != "")
		if err != nil {
			return err
		}
	}
	limited := netutil.LimitListener(s.listener, MaxConnections)
	s.serving.Go(func() {
		var err error
		if s.socket != nil {
			err = s.http.Serve(limited)
		} else {
			err = web.Serve(limited, s.http, &s.opts.Web, s.opts.Logger)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("The local API has stopped", "err", err)
		}
	})
	return nil
}

// listenTCP binds an address. Without a web configuration it must be on
// loopback, also if it was given as a name.
func listenTCP(address string, guarded bool) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if a, ok := l.Addr().(*net.TCPAddr); !guarded && (!ok || !a.IP.IsLoopback()) {
		_ = l.Close()
		return nil, fmt.Errorf("%s is %v, which is not on loopback", address, l.Addr())
	}
	return l, nil
}

// Addr is the bound address, after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close ends every stream, lets other answers finish for closeTimeout, and
// removes the socket.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // clients that do not read are cut off
	}
	s.serving.Wait()
	if s.socket != nil {
		return s.socket.remove()
	}
	return nil
}
