// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /sys/fs/selinux/enforce (selinux(8)) for what is, /etc/selinux/config
// (selinux_config(5)) for what the next boot sets, and /proc/filesystems,
// which lists selinuxfs only on a kernel that was started with SELinux.

const selinuxConfig = "/etc/selinux/config"

var selinuxModes = []string{"enforcing", "permissive", "disabled"}

type selinux struct {
	config, mode, state, configured *metric.Metric
}

func selinuxCollector() Spec {
	c := &selinux{
		config: metric.NewLegacy("linux_security_selinux_config",
			"Setting in /etc/selinux/config; always 1.",
			metric.Open("info_key", "Name as in selinux_config(5)."), metric.Open("info_value", "The value.")),
		mode: metric.NewLegacy("linux_security_selinux_mode",
			"Mode that SELinux is in; always 1.", metric.Closed("mode", selinuxModes...)),
		state: metric.NewState("linux_security_selinux_mode_state",
			"Whether SELinux is in the mode.", metric.Closed("mode", selinuxModes...)),
		configured: metric.NewState("linux_security_selinux_configured_mode_state",
			"Whether /etc/selinux/config asks for the mode; absent without that file.", metric.Closed("mode", selinuxModes...)),
	}
	return Spec{
		Name:    "selinux",
		Help:    "Mode of SELinux and its configuration.",
		Metrics: []*metric.Metric{c.config, c.mode, c.state, c.configured},
		Watch:   []string{selinuxConfig},
		Collect: c.collect,
	}
}

func (c *selinux) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	mode, err := selinuxMode(ctx, in.Root)
	if err == nil {
		out.Add(c.mode, 1, mode)
		out.OneOf(c.state, mode)
	}
	problems := []error{err}
	settings, err := readSelinuxConfig(ctx, in.Rootfs)
	if !errors.Is(err, hostfs.ErrNotExist) {
		problems = append(problems, err)
	}
	for _, key := range sortedKeys(settings) {
		out.Add(c.config, 1, key, settings[key])
	}
	if want := selinuxConfigured(settings["SELINUX"]); want != "" {
		out.OneOf(c.configured, want)
	}
	return Partial(errors.Join(problems...))
}

// selinuxConfigured is the mode that a value begins with, in any case: what
// follows, such as a comment, counts for nothing (selinux_getenforcemode(3)).
func selinuxConfigured(value string) string {
	for _, mode := range selinuxModes {
		if strings.HasPrefix(strings.ToLower(value), mode) {
			return mode
		}
	}
	return ""
}

// selinuxMode is the mode now: one of selinuxModes.
func selinuxMode(ctx context.Context, root *hostfs.Root) (string, error) {
	enforce, err := root.Sysfs.ReadValue(ctx, "/fs/selinux/enforce")
	switch {
	case err == nil && enforce == "1":
		return "enforcing", nil
	case err == nil:
		return "permissive", nil
	case !errors.Is(err, hostfs.ErrNotExist):
		return "", err
	}
	filesystems, err := root.Procfs.ReadValue(ctx, "/filesystems")
	if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
		return "", err
	}
	if slices.Contains(strings.Fields(filesystems), "selinuxfs") {
		return "", errors.New("SELinux is on and /sys/fs/selinux/enforce is not there: mount selinuxfs into the exporter's /sys")
	}
	return "disabled", nil
}

func readSelinuxConfig(ctx context.Context, root *hostfs.Tree) (map[string]string, error) {
	b, err := root.ReadLimit(ctx, selinuxConfig, hostfs.ValueLimit)
	if err != nil {
		return nil, err
	}
	return parseSelinuxConfig(bytes.NewReader(b))
}

// parseSelinuxConfig reads KEY=value lines; the first of two with one key
// wins, blanks after the equals sign and at the end are dropped.
func parseSelinuxConfig(r io.Reader) (map[string]string, error) {
	settings := make(map[string]string)
	lines := configLines(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if _, known := settings[key]; ok && !known && isShellName(key) {
			settings[key] = strings.TrimSpace(value)
		}
	}
	return settings, lines.Err()
}
