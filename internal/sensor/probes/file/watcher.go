// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
)

// refreshInterval is how often the plan is compared with the host. A name is
// watched without it; only another name of the same file waits for it.
const refreshInterval = 800 * time.Millisecond

// Watcher keeps the tables true to the rules while files come and go.
type Watcher struct {
	probe *probe.Probe
	root  *root

	mu     sync.Mutex // guards what follows, less the counts
	rules  []config.FileRule
	plan   *plan
	tables *tables

	objects, names, directories atomic.Int64
	lastError                   string
	stopped, done               chan struct{}
}

func newWatcher(p *probe.Probe, rules []config.FileRule) *Watcher {
	return &Watcher{probe: p, rules: rules, tables: newTables(p), stopped: make(chan struct{})}
}

// start fills the tables and goes on keeping them.
func (w *Watcher) start() error {
	var err error
	if w.root, err = openRoot(w.probe.Host().RootFS); err != nil {
		return err
	}
	w.mu.Lock()
	w.refresh()
	w.mu.Unlock()
	w.done = make(chan struct{})
	go w.run()
	return nil
}

func (w *Watcher) run() {
	defer close(w.done)
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		select {
		case <-w.stopped:
			return
		case <-tick.C:
			w.mu.Lock()
			if !w.plan.current(w.root) {
				w.refresh()
			}
			w.mu.Unlock()
		}
	}
}

func (w *Watcher) refresh() {
	w.plan = resolve(w.root, w.rules)
	found, err := identify(w.probe, w.root, w.plan.learn)
	if err == nil {
		err = w.tables.update(w.plan, found)
	} else {
		// Names and paths need no identity.
		err = fmt.Errorf("%w; files are watched by name only", err)
		_ = w.tables.update(w.plan, nil)
	}
	w.count()
	w.report(err)
}

// setRules goes over to other rules without a gap for those that stay: all of
// them, or none and an error.
func (w *Watcher) setRules(rules []config.FileRule) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Equal(rules, w.rules) {
		return nil
	}
	next := resolve(w.root, rules)
	found, err := identify(w.probe, w.root, next.learn)
	if err != nil && len(w.tables.objects) > 0 {
		return err
	}
	if err := w.tables.replace(next, found); err != nil {
		return err
	}
	w.rules, w.plan = rules, next
	w.count()
	return nil
}

func (w *Watcher) count() {
	w.objects.Store(int64(len(w.tables.objects)))
	w.names.Store(int64(len(w.tables.names)))
	w.directories.Store(int64(len(w.tables.layout)))
}

// report logs an error when it is another than last time.
func (w *Watcher) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != w.lastError {
		w.probe.Log().Warn("not every file rule is in force", "err", err)
	}
	w.lastError = text
}

func (w *Watcher) usage() []probe.Table {
	return []probe.Table{
		{Name: "watched_objects", Entries: int(w.objects.Load()), Capacity: abi.WatchObjects},
		{Name: "watched_names", Entries: int(w.names.Load()), Capacity: abi.WatchNames},
		{Name: "watched_directories", Entries: int(w.directories.Load()), Capacity: abi.WatchDirectories},
	}
}

func (w *Watcher) stop() {
	if w.done == nil {
		return
	}
	close(w.stopped)
	<-w.done
	w.done = nil
	_ = w.root.close()
}
