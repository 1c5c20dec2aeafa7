// SPDX-License-Identifier: Apache-2.0

// Package bench measures what the runtime half costs the host it runs on: the
// price of each system call that a hook touches, in turns without and with all
// probes attached, and the exporter's own appetite. `make bench` runs it.
package bench
