// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/login.defs (login.defs(5)). Where the distribution keeps its own
// in /usr/etc/login.defs, that one counts if /etc has none, and the drop-ins
// in login.defs.d of both apply after it (libeconf). A shadow suite built
// without libeconf reads no drop-ins, so they are left alone elsewhere.

const (
	loginDefs       = "/etc/login.defs"
	vendorLoginDefs = "/usr/etc/login.defs"
)

// loginDefsValues are the settings that are worth an alert of their own: how
// long passwords last, how they are kept, and who may read new files.
var loginDefsValues = []string{
	"PASS_MAX_DAYS", "PASS_MIN_DAYS", "PASS_WARN_AGE", "PASS_MIN_LEN", "UMASK", "HOME_MODE",
	"SHA_CRYPT_MIN_ROUNDS", "SHA_CRYPT_MAX_ROUNDS", "YESCRYPT_COST_FACTOR",
}

func loginDefsCollector() Spec {
	info := metric.NewLegacy("linux_security_login_defs_info",
		"Setting of login.defs: its number where info_value is num, else 1 with the text.",
		metric.Open("info_key", "Name as in login.defs(5)."), metric.Open("info_value", "num or the text."))
	value := metric.NewState("linux_security_login_defs_value",
		"Number that login.defs sets for passwords or the mode of new files, in the unit of login.defs(5).",
		metric.Open("key", "Name as in login.defs(5)."))

	return Spec{
		Name:    "login_defs",
		Help:    "Defaults of the shadow suite in login.defs.",
		Metrics: []*metric.Metric{info, value},
		Watch:   []string{loginDefs, vendorLoginDefs, "/etc/login.defs.d/*.defs"},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			settings, err := readLoginDefs(ctx, in.Rootfs)
			if settings == nil {
				return err
			}
			for _, key := range slices.Sorted(maps.Keys(settings)) {
				text := settings[key]
				if n, ok := loginDefsNumber(text); ok {
					out.Add(info, float64(n), key, "num")
					if slices.Contains(loginDefsValues, key) {
						out.Add(value, float64(n), key)
					}
					continue
				}
				out.Add(info, 1, key, text)
			}
			return Partial(err)
		},
	}
}

// readLoginDefs merges the files. With an error, the settings are those of
// the files that could be read, nil if the main one could not.
func readLoginDefs(ctx context.Context, root *hostfs.Tree) (map[string]string, error) {
	_, err := root.Lstat(ctx, vendorLoginDefs)
	vendor := err == nil
	b, err := root.ReadFile(ctx, loginDefs)
	if errors.Is(err, hostfs.ErrNotExist) && vendor {
		b, err = root.ReadFile(ctx, vendorLoginDefs)
	}
	if err != nil {
		return nil, err
	}
	settings, err := parseLoginDefs(bytes.NewReader(b))
	if err != nil || !vendor {
		return settings, err
	}
	var problems []error
	for _, pattern := range []string{"/usr/etc/login.defs.d/*.defs", "/etc/login.defs.d/*.defs"} {
		files, err := root.Glob(ctx, pattern)
		problems = append(problems, err)
		for _, f := range files {
			b, err := root.ReadFile(ctx, f)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			more, err := parseLoginDefs(bytes.NewReader(b))
			problems = append(problems, err)
			maps.Copy(settings, more)
		}
	}
	return settings, errors.Join(problems...)
}

// parseLoginDefs reads "NAME value" lines as the shadow suite does (getdef.c):
// the name ends at a blank, quotes around the value are dropped, of two lines
// with one name the last wins.
func parseLoginDefs(r io.Reader) (map[string]string, error) {
	settings := make(map[string]string)
	lines := configLines(r)
	for lines.Scan() {
		line := strings.Trim(lines.Text(), " \t\r")
		end := strings.IndexAny(line, " \t")
		if end < 0 || line[0] == '#' {
			continue
		}
		value := strings.TrimLeft(line[end:], " \t\"")
		value, _, _ = strings.Cut(value, `"`)
		settings[line[:end]] = value
	}
	return settings, lines.Err()
}

// loginDefsNumber is strtol with base 0: a leading 0 means octal, 0x
// hexadecimal, so UMASK 022 is 18.
func loginDefsNumber(text string) (int64, bool) {
	digits := strings.TrimLeft(text, "+-")
	if strings.ContainsAny(text, "_") || len(digits) > 1 && digits[0] == '0' && strings.ContainsAny(digits[1:2], "bBoO") {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 0, 64)
	return n, err == nil
}
