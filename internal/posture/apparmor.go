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

// Reads /sys/module/apparmor/parameters/enabled and
// /sys/kernel/security/apparmor/profiles (apparmor(7)). The kernel shows the
// profiles to user or group 0 only, whatever the capabilities
// (aa_policy_view_capable).

const apparmorProfiles = "/kernel/security/apparmor/profiles"

// apparmorModes are the kernel's modes; prompt is that of Ubuntu, and other
// is for what a later kernel may add.
var apparmorModes = []string{"enforce", "complain", "kill", "unconfined", "user", "prompt", "other"}

func apparmorCollector() Spec {
	enabled := metric.NewLegacy("linux_security_apparmor_enabled", "Whether AppArmor is on.")
	profiles := metric.NewLegacy("linux_security_apparmor_profiles", "Number of AppArmor profiles loaded.")
	count := metric.NewState("linux_security_apparmor_profile_count",
		"Number of AppArmor profiles loaded, by mode.", metric.Closed("mode", apparmorModes...))
	return Spec{
		Name:    "apparmor",
		Help:    "Whether AppArmor is on, and its profiles by mode.",
		Metrics: []*metric.Metric{enabled, profiles, count},
		Watch:   []string{"/etc/apparmor.d/*"},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			on, err := apparmorEnabled(ctx, in.Sysfs)
			if err != nil {
				return err
			}
			out.Bool(enabled, on)
			modes := map[string]int{}
			if on {
				if modes, err = readApparmorProfiles(ctx, in.Sysfs); err != nil {
					return Partial(err)
				}
			}
			total := 0
			for _, mode := range apparmorModes {
				total += modes[mode]
				out.Add(count, float64(modes[mode]), mode)
			}
			out.Add(profiles, float64(total))
			return nil
		},
	}
}

// apparmorEnabled is false on a kernel without AppArmor too.
func apparmorEnabled(ctx context.Context, sys *hostfs.Tree) (bool, error) {
	v, err := sys.ReadValue(ctx, "/module/apparmor/parameters/enabled")
	if errors.Is(err, hostfs.ErrNotExist) {
		err = nil
	}
	return v == "Y", err
}

func readApparmorProfiles(ctx context.Context, sys *hostfs.Tree) (map[string]int, error) {
	b, err := sys.ReadFile(ctx, apparmorProfiles)
	if errors.Is(err, hostfs.ErrNotExist) {
		// Not ErrNotExist: AppArmor is on, so there are profiles somewhere.
		return nil, errors.New("AppArmor is on and /sys/kernel/security/apparmor/profiles is not there: mount securityfs into the exporter's /sys")
	}
	if err != nil {
		return nil, err
	}
	return parseApparmorProfiles(bytes.NewReader(b))
}

// parseApparmorProfiles counts lines of the form "name (mode)" by mode. A
// name may hold blanks and parentheses.
func parseApparmorProfiles(r io.Reader) (map[string]int, error) {
	modes := make(map[string]int)
	lines := configLines(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		i := strings.LastIndex(line, " (")
		if i < 0 || !strings.HasSuffix(line, ")") {
			continue
		}
		mode := line[i+2 : len(line)-1]
		if !slices.Contains(apparmorModes, mode) {
			mode = "other"
		}
		modes[mode]++
	}
	return modes, lines.Err()
}
