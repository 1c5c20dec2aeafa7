// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// All collectors on the host the test runs on: it must give a page that
// Prometheus takes, and a scrape must be quick.
func TestLive(t *testing.T) {
	t.Parallel()
	r := mustNew(t)
	r.Start(t.Context())
	defer func() { _ = r.Close() }()
	select {
	case <-r.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("not ready after 30 s")
	}
	got := scrape(t, r)
	for _, name := range Names() {
		if _, ok := got["scrape_collector_success{"+name+"}"]; !ok {
			t.Errorf("%s has no result", name)
		}
	}
	if len(got) >= 1500 {
		t.Errorf("%d series", len(got))
	}
}

func BenchmarkScrape(b *testing.B) {
	r, err := New(Options{LegacyNames: true})
	if err != nil {
		b.Fatal(err)
	}
	r.Start(b.Context())
	defer func() { _ = r.Close() }()
	<-r.Ready()
	reg := prometheus.NewRegistry()
	reg.MustRegister(r)
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
