// SPDX-License-Identifier: Apache-2.0

// Package httpd serves the metrics page, /healthz, /readyz, a landing page
// and, if it may, /-/reload. Listening, TLS, basic auth and socket activation are those of the
// Prometheus exporter-toolkit; a --web.config.file with users protects every
// path, the two health checks included.
//
// Slow and greedy clients are bounded: headers, body and answer have
// deadlines, and at most MaxScrapes pages are built at a time.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/exporter-toolkit/web"
)

const (
	// MaxScrapes is how many metrics pages are built at a time; one more is
	// answered 503.
	MaxScrapes = 8
	// DrainTimeout is how long a scrape that is being served at shutdown may
	// still take.
	DrainTimeout = 1200 * time.Millisecond

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	reloadTimeout     = 20 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
)

// Options configure a Server.
type Options struct {
	// Web says where and how to listen.
	Web web.FlagConfig
	// TelemetryPath is the path of the metrics page, validated by config.
	TelemetryPath string
	// Registry is what the page shows. The server adds its own error counter.
	Registry *prometheus.Registry
	// Ready returns why the exporter is not ready, one reason for each line;
	// none means ready. It is called for each /readyz and must not block.
	Ready func() []string
	// Reload applies the configuration file, for POST /-/reload, and returns an
	// error of one line; nil refuses that.
	Reload func(context.Context) error
	// Version is shown on the landing page.
	Version string
	Logger  *slog.Logger
}

// Server serves until its context ends. Use it once.
type Server struct {
	opts     Options
	handler  http.Handler
	wait     sync.WaitGroup
	errs     chan error
	bound    chan net.Addr
	servers  []*http.Server
	wantAddr int
}

// New returns a server that does not listen yet.
func New(opts Options) (*Server, error) {
	handler, err := newHandler(opts)
	if err != nil {
		return nil, err
	}
	return &Server{opts: opts, handler: handler}, nil
}

// Start listens on every address and begins to serve. It returns the bound
// addresses once all of them accept connections, or the first error, such as
// a port in use; then nothing is left running.
func (s *Server) Start() ([]net.Addr, error) {
	configs := perAddress(s.opts.Web)
	s.wantAddr = len(configs)
	s.errs = make(chan error, len(configs))
	s.bound = make(chan net.Addr, 64)
	for _, flags := range configs {
		srv := s.newServer()
		s.servers = append(s.servers, srv)
		s.wait.Go(func() {
			err := web.ListenAndServe(srv, flags, s.opts.Logger)
			if err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.errs <- err
			}
		})
	}
	var addrs []net.Addr
	for len(addrs) < s.wantAddr {
		select {
		case err := <-s.errs:
			s.close()
			return nil, fmt.Errorf("cannot serve: %w", err)
		case a := <-s.bound:
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// Wait serves until ctx ends, then lets the scrapes being served finish, for
// DrainTimeout at most. It returns the error that made serving impossible, or
// nil. When it returns, no request is being served and no port is open.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case err := <-s.errs:
		s.close()
		return fmt.Errorf("cannot serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	for _, srv := range s.servers {
		stopping.Go(func() {
			if err := srv.Shutdown(drain); err != nil {
				s.opts.Logger.Warn("Connections were cut at shutdown", "err", err)
				_ = srv.Close()
			}
		})
	}
	stopping.Wait()
	s.wait.Wait()
	return nil
}

func (s *Server) close() {
	for _, srv := range s.servers {
		_ = srv.Close()
	}
	s.wait.Wait()
}

// newServer returns one http.Server. There is one for each address, because
// the exporter-toolkit changes the server it is given when it starts.
func (s *Server) newServer() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// What clients do wrong (TLS handshakes, early closes) is theirs.
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
		BaseContext: func(l net.Listener) context.Context {
			select {
			case s.bound <- l.Addr():
			default: // more activated sockets than anyone waits for
			}
			return context.Background()
		},
	}
}

// perAddress splits the flags into one configuration for each address.
// Sockets handed over by systemd stay together.
func perAddress(c web.FlagConfig) []*web.FlagConfig {
	if c.WebSystemdSocket != nil && *c.WebSystemdSocket {
		return []*web.FlagConfig{&c}
	}
	var out []*web.FlagConfig
	for _, addr := range *c.WebListenAddresses {
		one := c
		one.WebListenAddresses = &[]string{addr}
		out = append(out, &one)
	}
	return out
}
