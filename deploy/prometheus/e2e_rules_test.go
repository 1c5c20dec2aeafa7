// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// short is what the end-to-end test loads in the place of each duration of the
// rules: of a range, an offset, a for and an interval. The order is kept, a
// minute stands for a scrape interval, and expressions are otherwise the same,
// numbers in them too: the windows of the bursts are shorter, so that what is
// called 10 minutes there is 6 seconds, multiplied by a hundred.
var short = map[string]string{
	"1m": "1s", "3m": "2s", "5m": "4s", "10m": "6s", "15m": "8s", "30m": "10s", "1h": "15s", "1d": "30s",
}

func shortened(t *testing.T, d time.Duration) time.Duration {
	t.Helper()
	to, ok := short[model.Duration(d).String()]
	if !ok {
		t.Fatalf("the rules have the duration %s, and short has none for it", model.Duration(d))
	}
	return parseDuration(t, to)
}

func parseDuration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := model.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(d)
}

// shortenExpr is an expression with short durations.
func shortenExpr(t *testing.T, expr string) string {
	t.Helper()
	e := parse(t, expr)
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.MatrixSelector:
			n.Range = shortened(t, n.Range)
		case *parser.VectorSelector:
			if n.OriginalOffset != 0 {
				n.OriginalOffset = shortened(t, n.OriginalOffset)
			}
		case *parser.SubqueryExpr:
			t.Fatalf("%s: a subquery is not shortened", expr)
		}
		return nil
	})
	return e.String()
}

// shortenRules writes a copy of a file of rules with short durations into a
// folder and returns its path.
func shortenRules(t *testing.T, path, dir string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name     string           `yaml:"name"`
			Interval string           `yaml:"interval,omitempty"`
			Rules    []map[string]any `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for i := range file.Groups {
		g := &file.Groups[i]
		if g.Interval != "" {
			g.Interval = shortened(t, parseDuration(t, g.Interval)).String()
		}
		for _, r := range g.Rules {
			r["expr"] = shortenExpr(t, r["expr"].(string))
			if wait, ok := r["for"].(string); ok {
				r["for"] = shortened(t, parseDuration(t, wait)).String()
			}
		}
	}
	if data, err = yaml.Marshal(file); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(out, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestShortDurationsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	long := slices.Collect(maps.Keys(short))
	slices.SortFunc(long, func(a, b string) int { return int(parseDuration(t, a) - parseDuration(t, b)) })
	for i := range long[1:] {
		if parseDuration(t, short[long[i]]) >= parseDuration(t, short[long[i+1]]) {
			t.Errorf("%s is short for %s, and %s for %s", short[long[i]], long[i], short[long[i+1]], long[i+1])
		}
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		`increase(up[5m]) > 600`:                                 `increase(up[4s]) > 600`,
		`instance:a:rate10m and min_over_time(up[1d] offset 1h)`: `instance:a:rate10m and min_over_time(up[30s] offset 15s)`,
		`up unless on (job) up offset 1d`:                        `up unless on (job) up offset 30s`,
	} {
		if got := shortenExpr(t, expr); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}
