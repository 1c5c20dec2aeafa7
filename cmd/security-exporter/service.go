// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"security-exporter/internal/config"
	"security-exporter/internal/harden"
)

// hardenAgain is how long to wait when a thread hangs in a file system.
const hardenAgain = 30 * time.Second

// giveUpPrivileges hardens the process. It never fails for good: what the
// process still may do is in security_exporter_hardening_info.
func giveUpPrivileges(ctx context.Context, cfg *config.Config, logger *slog.Logger) {
	needs := harden.Needs{EBPF: cfg.EBPF.Enabled, Collectors: cfg.Collectors}
	err := harden.Apply(ctx, needs)
	if err == nil {
		return
	}
	if !errors.Is(err, harden.ErrBusy) {
		logger.Error("Privileges were not given up", "err", err)
		return
	}
	logger.Warn("Privileges are not given up yet", "err", err)
	go func() {
		for errors.Is(err, harden.ErrBusy) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(hardenAgain):
			}
			err = harden.Apply(ctx, needs)
		}
		if err != nil {
			logger.Error("Privileges were not given up", "err", err)
		}
	}()
}

// tellSystemd reports that the start is over and, while ctx lasts, that the
// process is alive, if it runs as a unit of Type=notify (sd_notify(3)).
func tellSystemd(ctx context.Context, logger *slog.Logger) {
	notify(daemon.SdNotifyReady, logger)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("No watchdog", "err", err)
	}
	if interval == 0 {
		return
	}
	go func() {
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				notify(daemon.SdNotifyWatchdog, logger)
			}
		}
	}()
}

// tellSystemdStopping reports that the end has begun.
func tellSystemdStopping(logger *slog.Logger) { notify(daemon.SdNotifyStopping, logger) }

func notify(state string, logger *slog.Logger) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("Cannot notify systemd", "err", err)
	}
}
