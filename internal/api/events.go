// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"security-exporter/internal/stream"
)

// The media types of the stream.
const (
	ndjson      = "application/x-ndjson"
	eventStream = "text/event-stream"
)

// events follows the stream until the client leaves or the server closes.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	values, ok := query(w, r, []string{"kind", "class", "min_severity"}, []string{"min_severity"})
	if !ok {
		return
	}
	filter, err := stream.NewFilter(values["kind"], values["class"], values.Get("min_severity"))
	if err == nil && values.Has("min_severity") && values.Get("min_severity") == "" {
		err = errors.New(`unknown min_severity "", want ` + strings.Join(stream.Severities(), ", "))
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	if h.opts.Hub == nil {
		fail(w, http.StatusServiceUnavailable, "%s", h.opts.EventsOff)
		return
	}
	asEvents := wantsEventStream(r.Header.Values("Accept"))
	w.Header().Set("Content-Type", ndjson)
	if asEvents {
		w.Header().Set("Content-Type", eventStream)
	}
	w.Header().Set("Vary", "Accept")
	if r.Method == http.MethodHead {
		return
	}
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "%d clients follow events already, which is the most", MaxStreams)
		return
	}
	sub := h.opts.Hub.Subscribe(stream.OutputAPI, filter, stream.DefaultQueue)
	defer sub.Close()
	follow(w, r, sub, asEvents)
}

// follow copies what a subscriber gets to a client. It ends when the client
// is gone, which the context tells, or has read nothing for stallTimeout.
func follow(w http.ResponseWriter, r *http.Request, sub *stream.Subscriber, asEvents bool) {
	rc := http.NewResponseController(w)
	// The deadlines of the server are for answers that end. A failure leaves
	// them in place, and the stream ends early.
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Now().Add(stallTimeout))
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		return
	}
	var framed []byte
	for {
		ctx, cancel := context.WithTimeout(r.Context(), keepAlive)
		batch, err := sub.Next(ctx)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return
		case err != nil && asEvents:
			framed = append(framed[:0], ": still here\n\n"...)
			batch = framed
		case err != nil:
			continue
		case asEvents:
			framed = framed[:0]
			for line := range bytes.Lines(batch) {
				framed = append(append(append(framed, "data: "...), line...), '\n')
			}
			batch = framed
		}
		_ = rc.SetWriteDeadline(time.Now().Add(stallTimeout))
		if _, err := w.Write(batch); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
	}
}

// wantsEventStream says whether a client asks for server-sent events by name.
func wantsEventStream(accept []string) bool {
	for _, header := range accept {
		for part := range strings.SplitSeq(header, ",") {
			media, params, err := mime.ParseMediaType(part)
			if err != nil || media != eventStream {
				continue
			}
			q, err := strconv.ParseFloat(params["q"], 64)
			if params["q"] == "" || err == nil && q > 0 {
				return true
			}
		}
	}
	return false
}
