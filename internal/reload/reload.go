// SPDX-License-Identifier: Apache-2.0

// Package reload applies the configuration file again to an exporter that
// runs: the whole file, or nothing of it and an error.
package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/config"
	"security-exporter/internal/metric"
)

// ErrNoFile is returned by Reload if the exporter was started without a
// configuration file.
var ErrNoFile = errors.New("there is no file to apply: the exporter was started without --config.file")

// ErrNotNow is returned by Reload if the exporter does not get to it: it still
// starts, or is about to end.
var ErrNotNow = errors.New("the exporter is starting or stopping; try again")

// Options say what is changed, and how.
type Options struct {
	// Config is what the exporter was started with.
	Config *config.Config
	Known  config.Known
	// SetRules puts file rules in force, all of them, or none and an error.
	SetRules func([]config.FileRule) error
	// SetPosture does the same for the rest, and cannot fail.
	SetPosture func(config.Posture)
	// Started is closed when everything runs. Nothing is applied before.
	Started <-chan struct{}
	Logger  *slog.Logger
}

// Reloader applies one change at a time. It is the prometheus.Collector of how
// the last one went, and safe for concurrent use.
type Reloader struct {
	options Options
	busy    chan struct{} // holds one

	mu      sync.Mutex // guards what follows: a scrape reads it
	config  *config.Config
	ok      bool
	applied time.Time

	metrics metrics
}

// New returns a Reloader. The present configuration counts as applied now.
func New(o Options) *Reloader {
	return &Reloader{options: o, busy: make(chan struct{}, 1), config: o.Config, ok: true, applied: time.Now(), metrics: newMetrics()}
}

// Run applies the file each time that a signal arrives, until ctx ends. What
// arrives during a change or before the start is over is made up for by one.
func (r *Reloader) Run(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			_ = r.Reload(ctx) // it has logged the error
		}
	}
}

// Reload applies the file as it is now. The error is one line; it names the
// file and, if the file is at fault, line and key. The configuration before
// stays in force then.
func (r *Reloader) Reload(ctx context.Context) error {
	select {
	case <-r.options.Started:
	case <-ctx.Done():
		return ErrNotNow
	}
	select {
	case r.busy <- struct{}{}:
		defer func() { <-r.busy }()
	case <-ctx.Done():
		return ErrNotNow
	}
	if ctx.Err() != nil {
		return ErrNotNow
	}
	now := r.present()
	if now.File == "" {
		r.options.Logger.Warn("Configuration not applied", "err", ErrNoFile)
		return ErrNoFile
	}
	next, err := r.apply(now)
	r.mu.Lock()
	r.ok = err == nil
	if r.ok {
		r.config, r.applied = next, time.Now()
	}
	r.mu.Unlock()
	if err != nil {
		r.options.Logger.Error("Configuration not applied; the one before stays in force", "err", err)
		return err
	}
	r.options.Logger.Info("Configuration applied", "file", next.File, "hash", next.FileHash)
	return nil
}

func (r *Reloader) present() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.config
}

// apply does first what may fail.
func (r *Reloader) apply(now *config.Config) (*config.Config, error) {
	next, err := now.Reread(r.options.Known)
	if err != nil {
		return nil, err
	}
	if err := r.options.SetRules(next.FileRules); err != nil {
		return nil, fmt.Errorf("%s: file_access.rules: %s", next.File, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	r.options.SetPosture(next.Posture)
	return next, nil
}

type metrics struct{ ok, applied, hash *metric.Metric }

func newMetrics() metrics {
	return metrics{
		ok: metric.New(metric.Gauge, "security_exporter_config_last_reload_successful",
			"Whether the configuration file was applied the last time it was to be; 1 after the start."),
		applied: metric.New(metric.Gauge, "security_exporter_config_last_reload_success_timestamp_seconds",
			"When the configuration in force was applied."),
		hash: metric.NewState("security_exporter_config_hash_info",
			"The configuration file in force; always 1.",
			metric.Open("hash", "first 16 digits of the SHA-256 of the file, or none without one")),
	}
}

func (m metrics) table() []*metric.Metric { return []*metric.Metric{m.ok, m.applied, m.hash} }

// Metrics is the table of this package, for the documentation.
func Metrics() []*metric.Metric { return newMetrics().table() }

// Describe implements prometheus.Collector.
func (r *Reloader) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range r.metrics.table() {
		ch <- m.Desc()
	}
}

// Collect implements prometheus.Collector.
func (r *Reloader) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	ok, applied, hash := r.ok, r.applied, r.config.FileHash
	r.mu.Unlock()
	if hash == "" {
		hash = "none"
	}
	batch := metric.NewBatch(0)
	batch.Bool(r.metrics.ok, ok)
	batch.Add(r.metrics.applied, float64(applied.UnixMilli())/1e3)
	batch.Add(r.metrics.hash, 1, hash)
	batch.Collect(ch)
}
