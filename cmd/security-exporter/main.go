// SPDX-License-Identifier: Apache-2.0

// Command security-exporter exports the security of a Linux host as
// Prometheus metrics. With a first argument status, top or events it shows
// what a running exporter sees instead (package client).
//
// It exits with 0 after --help, --version, SIGTERM or SIGINT, with 2 for a bad
// flag or configuration file or an address that is in use, before anything is
// loaded, and with 1 when it fails later or cannot stop in time. A second
// signal ends it at once. SIGHUP applies the configuration file again (package
// reload).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"security-exporter/internal/api"
	"security-exporter/internal/buildinfo"
	"security-exporter/internal/client"
	"security-exporter/internal/config"
	"security-exporter/internal/harden"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/httpd"
	"security-exporter/internal/posture"
	"security-exporter/internal/registry"
	"security-exporter/internal/reload"
	"security-exporter/internal/sensor"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/stream"
)

// firstScrape bounds how long a scrape after the start waits for the first run
// of every collector.
const firstScrape = time.Second

// memoryLimit is where Go collects garbage more often rather than grow, in
// bytes: half of what the packages in deploy allow. Some 25 MiB are usual; a
// host with 100,000 accounts comes near it.
const memoryLimit = 256 << 20

// The whole shutdown stays below two seconds: what the last scrapes leave of
// stopTimeout is for closing, and closeTimeout at least.
const (
	stopTimeout  = 1800 * time.Millisecond
	closeTimeout = stopTimeout - httpd.DrainTimeout
)

func main() {
	// All work is short and waits for the kernel most of the time. To wake a
	// second thread for each piece of it costs more than it gains.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// After the first signal the default action is back, so a second one kills.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// part is a half of the exporter that runs beside the server. Start may take
// its time and returns early when its context ends; Close comes after Start
// has returned, and is not called if Start was not.
type part interface {
	prometheus.Collector
	Start(ctx context.Context)
	Close() error
}

// run is the program: it returns the exit code once ctx has ended or the
// server has failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && client.IsCommand(args[0]) {
		return client.Run(ctx, args, client.IO{In: os.Stdin, Out: stdout, Err: stderr})
	}
	// From here on, and during the shutdown too, the signal does not end us.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	checkOnly := len(args) > 0 && args[0] == "check-config"
	if checkOnly {
		args = args[1:]
	}
	cfg, err := config.Parse(args, registry.Known(), stdout)
	if errors.Is(err, config.ErrPrinted) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, buildinfo.Name+": "+err.Error())
		return 2
	}
	if checkOnly {
		fmt.Fprintln(stdout, "the flags and the configuration file are good")
		return 0
	}
	logger := cfg.Logger(stderr)

	hub := stream.NewHub()
	runtime := newSensor(cfg, hub, logger)
	runner, err := newPosture(cfg, logger)
	if err != nil {
		fmt.Fprintln(stderr, buildinfo.Name+": "+err.Error())
		return 2
	}
	parts := []part{runner, runtime} // the start of the first takes no time
	started := make(chan struct{})
	reloader := newReloader(cfg, runner, runtime, started, logger)
	reg := newRegistry(cfg, parts)
	reg.MustRegister(hub, reloader)
	ready := func() []string {
		if isClosed(started) {
			return nil
		}
		return []string{"still starting"}
	}
	out, err := openWays(cfg, hub, rankings{runtime}, &api.MetricStatus{Gatherer: reg, Ready: ready, Started: time.Now()}, logger)
	if err != nil {
		fmt.Fprintln(stderr, buildinfo.Name+": "+err.Error())
		return 2
	}
	defer out.close()
	context.AfterFunc(ctx, out.closeAPI) // clients follow events for as long as they may
	server, err := httpd.New(httpd.Options{
		Web: cfg.Web, TelemetryPath: cfg.TelemetryPath, Registry: reg,
		Ready: ready, Reload: reloadOverHTTP(ctx, cfg, reloader), Version: buildinfo.Text(), Logger: logger,
	})
	if err == nil {
		// Listen first: a port in use must be known before anything is loaded.
		_, err = server.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, buildinfo.Name+": "+err.Error())
		return 2
	}
	logger.Info("Started", "version", buildinfo.Version(), "revision", buildinfo.Revision(), "api", out.address())

	// The parts outlive ctx: the scrapes being served when it ends need them.
	partsCtx, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	var starting sync.WaitGroup
	starting.Go(func() {
		for _, p := range parts {
			p.Start(partsCtx)
		}
		if cfg.Harden {
			giveUpPrivileges(partsCtx, cfg, logger)
		}
		close(started)
		tellSystemd(partsCtx, logger)
		// Loading has left some ten megabytes behind, which the collector
		// would give back in a while.
		debug.FreeOSMemory()
	})
	go reloader.Run(ctx, hangups)
	var ended atomic.Int64 // when ctx did, in nanoseconds
	context.AfterFunc(ctx, func() {
		ended.Store(time.Now().UnixNano())
		if !isClosed(started) {
			stopParts() // a scrape that waits for the start need not wait longer
		}
	})
	err = server.Wait(ctx)
	if err != nil {
		fmt.Fprintln(stderr, buildinfo.Name+": "+err.Error())
	}
	tellSystemdStopping(logger)
	stopParts()
	limit := stopTimeout
	if at := ended.Load(); at != 0 {
		limit = max(closeTimeout, limit-time.Since(time.Unix(0, at)))
	}
	if closed := closeParts(parts, &starting, limit, logger); err != nil || !closed {
		return 1
	}
	logger.Info("Stopped")
	return 0
}

// newPosture is the posture half. Nothing is read before Start.
func newPosture(cfg *config.Config, logger *slog.Logger) (*posture.Runner, error) {
	return posture.New(posture.Options{
		Root: hostfs.New(hostfs.Paths{Procfs: cfg.ProcFS, Sysfs: cfg.SysFS, Rootfs: cfg.RootFS}),
		Log:  logger, Enabled: cfg.Collectors, LegacyNames: cfg.Posture.LegacyNames, FirstScrape: firstScrape,
		Intervals: cfg.Posture.Intervals,
		Settings: posture.Settings{
			PortStates: cfg.Posture.PortStates, CronFullCommand: cfg.Posture.CronFullCommand,
			ServicesEnabled: cfg.Posture.ServicesEnabled, ServicesRunning: cfg.Posture.ServicesRunning,
			Sysctl: cfg.Posture.Sysctl, Waivers: cfg.Posture.Waivers,
		},
	})
}

func newReloader(cfg *config.Config, runner *posture.Runner, runtime *sensor.Manager, started <-chan struct{}, logger *slog.Logger) *reload.Reloader {
	return reload.New(reload.Options{
		Config: cfg, Known: registry.Known(), SetRules: runtime.SetRules,
		SetPosture: func(p config.Posture) { runner.Reload(p.Intervals, p.Waivers, p.Sysctl) },
		Started:    started, Logger: logger,
	})
}

// reloadOverHTTP is what POST /-/reload does, or nil. It ends with ctx.
func reloadOverHTTP(ctx context.Context, cfg *config.Config, reloader *reload.Reloader) func(context.Context) error {
	if !cfg.Lifecycle {
		return nil
	}
	return func(request context.Context) error {
		request, cancel := context.WithCancel(request)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return reloader.Reload(request)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// newSensor is the runtime half; its detail events go to whoever listens at
// the hub.
func newSensor(cfg *config.Config, hub *stream.Hub, logger *slog.Logger) *sensor.Manager {
	return sensor.New(sensor.Options{
		Enabled: cfg.EBPF.Enabled, Probes: cfg.EBPF.Probes, Rules: cfg.FileRules,
		HookPolicy: probe.Policy(cfg.EBPF.HookPolicy),
		SampleRate: cfg.EBPF.SampleRate, SampleRateFixed: cfg.EBPF.SampleRateFixed,
		MaxEventsPerSecond: cfg.EBPF.MaxEventsPerSecond,
		Detailed:           cfg.EBPF.Detailed, Arguments: cfg.Events.Arguments,
		TopN: cfg.EBPF.TopN, TopCapacity: cfg.EBPF.TopCapacity, TopWindow: cfg.EBPF.TopWindow,
		OnEvent: hub.Publish,
		ProcFS:  cfg.ProcFS, SysFS: cfg.SysFS, RootFS: cfg.RootFS, Logger: logger,
	})
}

func newRegistry(cfg *config.Config, parts []part) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(buildinfo.NewCollector())
	reg.MustRegister(harden.NewCollector())
	for _, p := range parts {
		reg.MustRegister(p)
	}
	if cfg.GoMetrics {
		reg.MustRegister(collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return reg
}

// closeParts stops the parts in reverse order and says whether all of them
// stopped without an error and in time. The kernel removes what a part that
// hangs has attached, since the process ends.
func closeParts(parts []part, starting *sync.WaitGroup, limit time.Duration, logger *slog.Logger) bool {
	done := make(chan bool, 1)
	go func() {
		starting.Wait()
		ok := true
		for i := len(parts) - 1; i >= 0; i-- {
			if err := parts[i].Close(); err != nil {
				logger.Error("Cannot stop cleanly", "err", err)
				ok = false
			}
		}
		done <- ok
	}()
	select {
	case ok := <-done:
		return ok
	case <-time.After(limit):
		logger.Error("Cannot stop in time", "timeout", limit)
		return false
	}
}
