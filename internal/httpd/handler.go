// SPDX-License-Identifier: Apache-2.0

package httpd

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newHandler routes the paths of the server. The telemetry path may hold
// anything that config lets through, so it is never a pattern of the router.
func newHandler(opts Options) (http.Handler, error) {
	page, err := landingPage(opts)
	if err != nil {
		return nil, err
	}
	routes := map[string]http.Handler{
		opts.TelemetryPath: compressed(promhttp.HandlerFor(opts.Registry, promhttp.HandlerOpts{
			ErrorLog: errorLog{opts.Logger},
			// One bad collector must not take the others off the page.
			ErrorHandling:       promhttp.ContinueOnError,
			Registry:            opts.Registry,
			MaxRequestsInFlight: MaxScrapes,
			DisableCompression:  true,
		})),
		"/healthz": text(func() (int, string) { return http.StatusOK, "ok\n" }),
		"/readyz": text(func() (int, string) {
			if reasons := opts.Ready(); len(reasons) > 0 {
				return http.StatusServiceUnavailable, strings.Join(reasons, "\n") + "\n"
			}
			return http.StatusOK, "ok\n"
		}),
		"/": page,
	}
	const reloadPath = "/-/reload"
	routes[reloadPath] = reload(opts.Reload)
	if len(routes) != 5 {
		return nil, fmt.Errorf("telemetry path %s is taken by the server itself", opts.TelemetryPath)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h, ok := routes[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
		case r.URL.Path == reloadPath:
			h.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are allowed", http.StatusMethodNotAllowed)
		default:
			h.ServeHTTP(w, r)
		}
	}), nil
}

// errorLog hands what a scrape could not collect to the log; promhttp counts
// it as well, in promhttp_metric_handler_errors_total.
type errorLog struct{ logger *slog.Logger }

func (l errorLog) Println(v ...any) {
	l.logger.Error("Metrics page is incomplete", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

// reload applies the configuration file. A page of another site that a browser
// shows may not ask for it.
func reload(apply func(context.Context) error) http.Handler {
	sites := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", "POST")
			http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
			return
		case apply == nil:
			http.Error(w, "the lifecycle API is off; start the exporter with --web.enable-lifecycle", http.StatusForbidden)
			return
		}
		if err := sites.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), reloadTimeout)
		defer cancel()
		if err := apply(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
}

// text serves a short plain text made for each request.
func text(answer func() (int, string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		code, body := answer()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})
}

// The exporter-toolkit has a landing page too, but does not escape it.
const landingHTML = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>security-exporter</title></head>
<body>
<h1>security-exporter</h1>
<p>The security of this host as Prometheus metrics. {{.Version}}</p>
<ul>
<li><a href="{{.TelemetryPath}}">{{.TelemetryPath}}</a>: metrics</li>
<li><a href="/healthz">/healthz</a>: the process is alive</li>
<li><a href="/readyz">/readyz</a>: everything that was asked for is running</li>
</ul>
</body>
</html>
`

func landingPage(opts Options) (http.Handler, error) {
	t, err := template.New("landing").Parse(landingHTML)
	if err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, opts); err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		_, _ = w.Write(b.Bytes())
	}), nil
}
