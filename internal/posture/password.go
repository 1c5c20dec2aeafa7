// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/shadow (shadow(5)). Of a password only the scheme is kept. The
// states of accounts that follow from it are in the collector accounts.

const shadowFile = "/etc/shadow"

// passwordAge is one field of shadow(5) with its two metrics.
type passwordAge struct {
	legacy, base *metric.Metric
	days         func(*shadowEntry) int64
}

func passwordCollector() Spec {
	user := metric.Open("username", "Account as in shadow(5).")
	age := func(legacy, legacyHelp, base, baseHelp string, days func(*shadowEntry) int64) passwordAge {
		return passwordAge{
			metric.NewLegacy("linux_security_"+legacy, legacyHelp, user),
			metric.NewState("linux_security_"+base, baseHelp, user), days,
		}
	}
	ages := []passwordAge{
		age("last_password_change", "Last change of the password in days since 1970-01-01, 0 if the next login must set a new one.",
			"password_last_change_timestamp_seconds", "Last change of the password in seconds since 1970, 0 if the next login must set a new one.",
			func(e *shadowEntry) int64 { return e.lastChange }),
		age("password_min_days", "Days before the password may be changed again.",
			"password_min_age_seconds", "Seconds before the password may be changed again.",
			func(e *shadowEntry) int64 { return e.minAge }),
		age("password_max_days", "Days before the password must be changed; 99999 stands for never.",
			"password_max_age_seconds", "Seconds before the password must be changed; 8639913600 (99999 days) stands for never.",
			func(e *shadowEntry) int64 { return e.maxAge }),
		age("password_warn_days", "Days of warning before the password must be changed.",
			"password_warning_seconds", "Seconds of warning before the password must be changed.",
			func(e *shadowEntry) int64 { return e.warning }),
		age("password_inactive", "Days after the maximum age in which the password is still taken.",
			"password_inactive_seconds", "Seconds after the maximum age in which the password is still taken.",
			func(e *shadowEntry) int64 { return e.inactive }),
		age("account_expire", "Day on which the account closes, in days since 1970-01-01.",
			"account_expires_timestamp_seconds", "Time at which the account closes in seconds since 1970.",
			func(e *shadowEntry) int64 { return e.expires }),
	}
	schemes := metric.New(metric.Gauge, "linux_security_password_hash_accounts",
		"Accounts with a password, those locked with ! included, by the scheme of its hash; named as in crypt(5), other is one not known there.",
		metric.Closed("scheme", hashSchemes...))

	metrics := []*metric.Metric{schemes}
	for _, a := range ages {
		metrics = append(metrics, a.legacy, a.base)
	}
	return Spec{
		Name:      "password",
		Help:      "Password ageing and hash schemes in shadow.",
		Metrics:   metrics,
		Watch:     []string{shadowFile},
		MaxSeries: 1000,
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			entries, _, err := readShadow(ctx, in.Rootfs)
			if entries == nil && err != nil {
				return err
			}
			countSchemes(entries, schemes, out)
			for i := range entries {
				if i%1024 == 0 && ctx.Err() != nil {
					return context.Cause(ctx)
				}
				for _, a := range ages {
					days := a.days(&entries[i])
					if days == noDays {
						continue
					}
					out.Add(a.legacy, float64(days), entries[i].name)
					out.Add(a.base, float64(days*secondsOfDay), entries[i].name)
				}
			}
			return Partial(err)
		},
	}
}

// countSchemes counts the first entry of each name, the one that counts.
func countSchemes(entries []shadowEntry, schemes *metric.Metric, out *metric.Batch) {
	count := make(map[string]int)
	seen := make(map[string]bool, len(entries))
	for _, e := range entries {
		if e.secret.state == secretHash && !seen[e.name] {
			count[e.secret.scheme]++
		}
		seen[e.name] = true
	}
	for _, scheme := range hashSchemes {
		out.Add(schemes, float64(count[scheme]), scheme)
	}
}

// readShadow returns the entries of /etc/shadow: nil with an error where the
// file is missing or cannot be read, those of the good lines with an error
// where others are bad.
func readShadow(ctx context.Context, root *hostfs.Tree) ([]shadowEntry, []compatEntry, error) {
	b, err := root.ReadFile(ctx, shadowFile)
	if err != nil {
		return nil, nil, err
	}
	entries, compat, err := parseShadow(bytes.NewReader(b))
	if entries == nil {
		entries = []shadowEntry{}
	}
	return entries, compat, err
}
