// SPDX-License-Identifier: Apache-2.0

package httpd

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTakesGzip(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "deflate, gzip;q=0.5": true, "gzip; q=0": false, "gzip;q=0.000": false,
		"br": false, "*": true, "*;q=0": false, "*;q=0, gzip": true, "gzip;q=0, *": false, "x-gzip": true, "gzipped": false,
		"identity": false, "gzip;q=x": false, "zstd,gzip;q=1.0": true,
	} {
		if got := takesGzip([]string{header}); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
	if !takesGzip([]string{"br", "gzip"}) {
		t.Error("the second of two headers is not read")
	}
}

func TestCompressed(t *testing.T) {
	t.Parallel()
	h := compressed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		for range 3 {
			_, _ = io.WriteString(w, "line\n")
		}
	}))
	for _, c := range []struct {
		path, accept, encoding string
		code                   int
		body                   string
	}{
		{"/", "gzip", "gzip", 200, "line\nline\nline\n"},
		{"/", "", "", 200, "line\nline\nline\n"},
		{"/", "gzip;q=0", "", 200, "line\nline\nline\n"},
		{"/busy", "gzip", "", 503, "busy\n"},
	} {
		req := httptest.NewRequest(http.MethodGet, c.path, nil)
		req.Header.Set("Accept-Encoding", c.accept)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		resp := rec.Result()
		body := io.Reader(resp.Body)
		if resp.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		text, err := io.ReadAll(body)
		if err != nil || string(text) != c.body || resp.StatusCode != c.code || resp.Header.Get("Content-Encoding") != c.encoding {
			t.Errorf("%s with %q: %d %q %q, %v", c.path, c.accept, resp.StatusCode, resp.Header.Get("Content-Encoding"), text, err)
		}
	}
}
