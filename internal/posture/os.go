// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"io"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/os-release, or /usr/lib/os-release where that is missing
// (os-release(5)), and /etc/redhat-release.

// osFields are the labels of os_version_info with the field each shows.
var osFields = []struct{ label, key string }{
	{"pretty_name", "PRETTY_NAME"}, {"os_name", "NAME"}, {"version", "VERSION"}, {"version_id", "VERSION_ID"},
	{"id", "ID"}, {"id_like", "ID_LIKE"}, {"home_url", "HOME_URL"}, {"bug_report_url", "BUG_REPORT_URL"},
	{"support_url", "SUPPORT_URL"}, {"variant", "VARIANT"}, {"variant_id", "VARIANT_ID"}, {"cpe_name", "CPE_NAME"},
	{"build_id", "BUILD_ID"}, {"image_id", "IMAGE_ID"}, {"image_version", "IMAGE_VERSION"},
}

func osCollector() Spec {
	labels := make([]metric.Label, 0, len(osFields)+1)
	for _, f := range osFields {
		labels = append(labels, metric.Open(f.label, f.key+" of os-release(5), empty if not set."))
	}
	labels = append(labels, metric.Open("redhat_release", "The first line of /etc/redhat-release, empty if there is none."))
	versionInfo := metric.NewLegacy("linux_security_os_version_info", "Operating system of the host; always 1.", labels...)

	return Spec{
		Name:    "os",
		Help:    "Name and version of the operating system.",
		Metrics: []*metric.Metric{versionInfo},
		Watch:   []string{"/etc/os-release", "/etc/redhat-release"},
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			fields, err := readOSRelease(ctx, in.Rootfs)
			if err != nil {
				return err
			}
			redhat, err := in.Rootfs.ReadValue(ctx, "/etc/redhat-release")
			if errors.Is(err, hostfs.ErrNotExist) {
				err = nil
			}
			redhat, _, _ = strings.Cut(redhat, "\n")
			values := make([]string, 0, len(labels))
			for _, f := range osFields {
				values = append(values, fields[f.key])
			}
			out.Add(versionInfo, 1, append(values, redhat)...)
			return Partial(err)
		},
	}
}

// readOSRelease returns the fields of os-release. The file in /etc wins as a
// whole.
func readOSRelease(ctx context.Context, root *hostfs.Tree) (map[string]string, error) {
	b, err := root.ReadLimit(ctx, "/etc/os-release", hostfs.ValueLimit)
	if errors.Is(err, hostfs.ErrNotExist) {
		b, err = root.ReadLimit(ctx, "/usr/lib/os-release", hostfs.ValueLimit)
	}
	if err != nil {
		return nil, err
	}
	return parseOSRelease(strings.NewReader(string(b)))
}

// parseOSRelease reads KEY=value lines with shell quoting. Lines that are
// something else are skipped; of two lines with one key the last wins.
func parseOSRelease(r io.Reader) (map[string]string, error) {
	fields := make(map[string]string)
	lines := configLines(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		key, value, ok := strings.Cut(line, "=")
		if !ok || !isShellName(key) {
			continue
		}
		fields[key] = shellUnquote(value)
	}
	return fields, lines.Err()
}

func isShellName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// shellUnquote removes the quotes and backslashes of one shell word, as
// sh(1) does without expanding anything: all that os-release(5) allows. What
// follows an unquoted blank is not part of the word.
func shellUnquote(s string) string {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\t'):
			return b.String()
		case c == '\\' && quote != '\'' && i+1 < len(s):
			if next := s[i+1]; quote == 0 || strings.IndexByte("$`\"\\", next) >= 0 {
				c = next
				i++
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
