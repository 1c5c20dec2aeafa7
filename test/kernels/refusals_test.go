// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"context"
	"log/slog"
	"strings"
)

// refusals is a log handler that keeps why a rung was refused.
type refusals struct {
	texts []string
	last  error
}

func (r *refusals) Enabled(context.Context, slog.Level) bool { return true }
func (r *refusals) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *refusals) WithGroup(string) slog.Handler            { return r }

func (r *refusals) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && record.Message == "rung refused" {
			r.last = err
			r.texts = append(r.texts, strings.ReplaceAll(err.Error(), "\n", " "))
		}
		return true
	})
	return nil
}

func (r *refusals) text() string { return strings.Join(r.texts, "; ") }
