// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"security-exporter/internal/api"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor"
	"security-exporter/internal/sensor/topn"
	"security-exporter/internal/stream"
)

// ways are what is open for events, and for questions about them, beside the
// metrics page.
type ways struct {
	output *stream.Output // nil if there is none
	server *api.Server    // nil if there is none
	once   sync.Once
	log    *slog.Logger
}

// openWays opens what the flags ask for. A default that cannot be had is left
// out with a warning; what was asked for by a flag is an error.
func openWays(cfg *config.Config, hub *stream.Hub, top api.TopSource, status api.StatusSource, logger *slog.Logger) (*ways, error) {
	w := &ways{log: logger}
	if cfg.Events.Stdout || cfg.Events.Path != "" {
		output, err := stream.OpenOutput(hub, stream.OutputOptions{
			Path: cfg.Events.Path, FileMiB: cfg.Events.FileMiB, Backups: cfg.Events.FileBackups, Logger: logger,
		})
		if err != nil {
			return nil, fmt.Errorf("--events.output: %w", err)
		}
		w.output = output
		if !cfg.EBPF.Enabled {
			logger.Warn("There are no events to write without --ebpf.enabled")
		}
	}
	if cfg.API.Socket == "" && cfg.API.TCP == "" {
		return w, nil
	}
	options := api.Options{
		Address: cfg.API, Web: cfg.Web, Status: status, Top: top, TopN: cmp.Or(cfg.EBPF.TopN, 10), TopCapacity: cfg.EBPF.TopCapacity, TopWindow: cfg.EBPF.TopWindow,
		Hub: hub, Logger: logger,
	}
	if !cfg.EBPF.Enabled {
		const off = "eBPF is off; start the exporter with --ebpf.enabled"
		options.Hub, options.EventsOff, options.Top, options.TopOff = nil, off, nil, off
	}
	server := api.New(options)
	switch err := server.Listen(); {
	case err == nil:
		w.server = server
	case cfg.API.Explicit:
		w.close()
		return nil, fmt.Errorf("--api.listen-address: %w", err)
	default:
		logger.Warn("Running without the local API; --api.listen-address says where else it may listen", "err", err)
	}
	return w, nil
}

// address is where the API listens, or "off".
func (w *ways) address() string {
	if w.server == nil {
		return "off"
	}
	return w.server.Addr().String()
}

// closeAPI ends the API, once.
func (w *ways) closeAPI() {
	w.once.Do(func() {
		if w.server == nil {
			return
		}
		if err := w.server.Close(); err != nil {
			w.log.Warn("The socket of the local API is left behind", "err", err)
		}
	})
}

// close ends everything, the output after what it still has to write.
func (w *ways) close() {
	w.closeAPI()
	if w.output != nil {
		w.output.Close()
	}
}

// rankings are the lists that the API shows.
type rankings struct{ sensor *sensor.Manager }

// Top implements api.TopSource.
func (r rankings) Top(by string, n int, window time.Duration) (api.Top, error) {
	ranking, ok := topn.ParseBy(by)
	if !ok {
		return api.Top{}, fmt.Errorf("there is no list %q", by)
	}
	top := r.sensor.Top(ranking, n, window)
	out := api.Top{Window: top.Span, Total: top.Total, Entries: make([]api.Entry, len(top.Entries))}
	for i, e := range top.Entries {
		out.Entries[i] = api.Entry{Key: e.Key, Container: e.Container, Count: e.Count, Error: uint64(math.Ceil(e.Bound()))}
	}
	return out, nil
}
