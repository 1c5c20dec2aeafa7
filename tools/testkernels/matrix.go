// SPDX-License-Identifier: Apache-2.0

package main

// kernel is a row of the matrix: the newest build in a suite whose version
// begins with series.
type kernel struct {
	name, arch string
	suite      string
	security   bool // in the security archive
	series     string
	// same is the policy whose hooks are those that auto takes.
	same string
}

// matrix has the slowest first, so that none is left alone at the end.
var matrix = []kernel{
	{name: "6.12", arch: "arm64", suite: "trixie", series: "6.12."},
	{name: "6.1", arch: "arm64", suite: "bookworm", series: "6.1.", same: "kprobe"},
	{name: "5.10", arch: "amd64", suite: "bullseye-security", security: true, series: "5.10."},
	{name: "6.1", arch: "amd64", suite: "bookworm", series: "6.1."},
	{name: "6.12", arch: "amd64", suite: "trixie", series: "6.12."},
	{name: "newest", arch: "amd64", suite: "trixie-backports", same: "kprobe"},
}

// tools is where busybox comes from, for each architecture.
var tools = kernel{name: "tools", suite: "bookworm"}

// policies are values of --ebpf.hook-policy. Under each, every part of a probe
// that has a hook of the kind uses only that kind. auto is fentry where the
// kernel has it.
var policies = []string{"auto", "kprobe", "tracepoint"}

func choose(name, arch string) []kernel {
	var out []kernel
	for _, k := range matrix {
		if (name == "" || k.name == name) && (arch == "" || k.arch == arch) {
			out = append(out, k)
		}
	}
	return out
}
