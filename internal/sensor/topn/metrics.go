// SPDX-License-Identifier: Apache-2.0

package topn

import (
	"security-exporter/internal/metric"
)

// Metrics are the rows of the rankings.
type Metrics struct {
	top   [byCount]*metric.Metric
	bound *metric.Metric
}

// NewMetrics declares the rows.
func NewMetrics() Metrics {
	container := metric.Open("container", "Name or short id of the container, empty for the host.")
	row := func(name, help, key string) *metric.Metric {
		return metric.New(metric.Gauge, "security_ebpf_top_"+name, help, metric.Open("key", key), container)
	}
	const process = "Path of the executable."
	return Metrics{
		top: [byCount]*metric.Metric{
			Exec:           row("exec", "Executions of the programs executed most, over the sliding window.", process),
			Connect:        row("connect", "Connections with the remote addresses that had most, both directions, over the sliding window.", "Remote address."),
			ConnectProcess: row("connect_process", "Connections of the programs that had most, both directions, over the sliding window.", process),
			File:           row("file", "Accesses to the watched files accessed most, over the sliding window.", "Path of the file."),
			FileProcess:    row("file_process", "Accesses to watched files by the programs that made most, over the sliding window.", process),
			Privilege:      row("privilege", "Changes of ids and capabilities by the programs that made most, over the sliding window.", process),
		},
		bound: metric.New(metric.Gauge, "security_ebpf_top_error",
			"How far a value of the ranking may be from the truth: the error of the summary, and three standard deviations of the sampling.",
			metric.Closed("ranking", Names()...)),
	}
}

// Table lists the rows.
func (m Metrics) Table() []*metric.Metric { return append(m.top[:], m.bound) }

// Add adds the n first places of each ranking over the whole window. A key
// that has left has no row.
func (m Metrics) Add(batch *metric.Batch, r *Rankings, n int) {
	for by := range byCount {
		bound := 0.0
		for _, e := range r.Top(by, n, r.window).Entries {
			batch.Add(m.top[by], float64(e.Count), e.Key, e.Container)
			bound = max(bound, e.Bound())
		}
		batch.Add(m.bound, bound, by.String())
	}
}
