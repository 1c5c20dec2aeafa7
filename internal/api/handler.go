// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The paths of the API.
const (
	StatusPath = "/api/v1/status"
	TopPath    = "/api/v1/top"
	EventsPath = "/api/v1/events"
)

// SinceStart is the window of a list that goes back to the start.
const SinceStart = "start"

// TopAnswer is what TopPath returns.
type TopAnswer struct {
	By string `json:"by"`
	// WindowSeconds is 0 for since the start.
	WindowSeconds float64 `json:"window_seconds"`
	Total         uint64  `json:"total"`
	Entries       []Entry `json:"entries"`
}

type handler struct {
	opts    Options
	streams chan struct{} // one slot for each stream
}

func newHandler(opts Options) http.Handler {
	h := &handler{opts: opts, streams: make(chan struct{}, MaxStreams)}
	routes := map[string]http.HandlerFunc{StatusPath: h.status, TopPath: h.top, EventsPath: h.events}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		route, ok := routes[r.URL.Path]
		switch {
		case !ok:
			fail(w, http.StatusNotFound, "there is %s, %s and %s", StatusPath, TopPath, EventsPath)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed")
		case opts.Address.TCP != "" && !opts.guarded() && !isOwnName(r.Host):
			// A page in a browser that has its name point to loopback.
			fail(w, http.StatusForbidden, "ask by address or as localhost, not as %q", printable(r.Host))
		default:
			route(w, r)
		}
	})
}

func (o *Options) guarded() bool { return o.Web.WebConfigFile != nil && *o.Web.WebConfigFile != "" }

func isOwnName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// fail answers with an error, which is one JSON object too.
func fail(w http.ResponseWriter, code int, format string, args ...any) {
	answer(w, code, map[string]string{"error": fmt.Sprintf(format, args...)})
}

func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}

// query parses the parameters, of which only those in allowed may be there,
// and those in once just once. It answers 400 itself.
func query(w http.ResponseWriter, r *http.Request, allowed, once []string) (url.Values, bool) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: %s", printable(err.Error()))
		return nil, false
	}
	var unknown []string
	for name := range values {
		if !slices.Contains(allowed, name) {
			unknown = append(unknown, strconv.Quote(printable(name)))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		want := "no parameter"
		if len(allowed) > 0 {
			want = strings.Join(allowed, ", ")
		}
		fail(w, http.StatusBadRequest, "unknown parameter %s, want %s", strings.Join(unknown[:min(len(unknown), 10)], ", "), want)
		return nil, false
	}
	for _, name := range once {
		if len(values[name]) > 1 {
			fail(w, http.StatusBadRequest, "%s is given %d times", name, len(values[name]))
			return nil, false
		}
	}
	return values, true
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	if _, ok := query(w, r, nil, nil); !ok {
		return
	}
	status, err := h.opts.Status.Status()
	if err != nil {
		fail(w, http.StatusInternalServerError, "%s", printable(err.Error()))
		return
	}
	answer(w, http.StatusOK, status)
}

func (h *handler) top(w http.ResponseWriter, r *http.Request) {
	params := []string{"by", "n", "window"}
	values, ok := query(w, r, params, params)
	if !ok {
		return
	}
	by := values.Get("by")
	if !slices.Contains(TopBy(), by) {
		fail(w, http.StatusBadRequest, "by=%s: want %s", printable(by), strings.Join(TopBy(), ", "))
		return
	}
	n := h.opts.TopN
	if s := values.Get("n"); values.Has("n") {
		v, err := strconv.ParseUint(s, 10, 31)
		if err != nil || v < 1 || v > uint64(h.opts.TopCapacity) {
			fail(w, http.StatusBadRequest, "n=%s: want a whole number from 1 to %d", printable(s), h.opts.TopCapacity)
			return
		}
		n = int(v)
	}
	window := h.opts.TopWindow
	if s := values.Get("window"); s == SinceStart {
		window = 0
	} else if values.Has("window") {
		d, err := time.ParseDuration(s)
		if err != nil || d < time.Second || d > h.opts.TopWindow {
			fail(w, http.StatusBadRequest, "window=%s: want a duration from 1s to %v, or %s", printable(s), h.opts.TopWindow, SinceStart)
			return
		}
		window = d
	}
	if h.opts.Top == nil {
		fail(w, http.StatusServiceUnavailable, "%s", h.opts.TopOff)
		return
	}
	top, err := h.opts.Top.Top(by, n, window)
	if err != nil {
		fail(w, http.StatusInternalServerError, "%s", printable(err.Error()))
		return
	}
	answer(w, http.StatusOK, TopAnswer{By: by, WindowSeconds: top.Window.Seconds(), Total: top.Total, Entries: append([]Entry{}, top.Entries...)})
}

// printable repeats a text of a client or of a library in a message.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 100)], "\ufffd")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, s)
}
