// SPDX-License-Identifier: Apache-2.0

package process

import (
	"testing"
)

// on is a program of a name in a safe place, with something for its standard
// input and output.
func on(name string, files ...string) func(t *testing.T) []string {
	return func(t *testing.T) []string {
		return append(append([]string{"exec"}, files...), put(t, folder(t, systemPlace), name, exiting()))
	}
}

var onSockets = []target{
	{name: "the shell of this host", class: "suspicious", make: func(*testing.T) []string {
		return []string{"exec", "stdin=tcp4", "/bin/sh", "-c", ":"}
	}},
	{name: "script on a socket", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"exec", "stdin=tcp4", script(t, folder(t, userPlace), "script", "/bin/sh")}
	}},
	{name: "only stdout", class: "suspicious", make: on("bash", "stdout=tcp4")},
	{name: "only stderr", class: "system", make: on("bash", "stderr=tcp4")},
	{name: "TCP over IPv6", class: "suspicious", make: on("dash", "stdin=tcp6", "stdout=tcp6")},
	{name: "UDP", class: "suspicious", make: on("zsh", "stdin=udp")},
	{name: "raw IP", class: "suspicious", make: on("ksh", "stdin=raw")},
	{name: "unix socket", class: "system", make: on("bash", "stdin=unix", "stdout=unix")},
	{name: "netlink socket", class: "system", make: on("bash", "stdin=netlink")},
	{name: "pipe", class: "system", make: on("bash", "stdin=pipe", "stdout=pipe")},
	{name: "python3.11", class: "suspicious", make: on("python3.11", "stdin=tcp4")},
	{name: "python3", class: "suspicious", make: on("python3", "stdout=tcp4")},
	{name: "perl5.36.0", class: "suspicious", make: on("perl5.36.0", "stdin=tcp4")},
	{name: "php8.2", class: "suspicious", make: on("php8.2", "stdin=tcp4")},
	{name: "luajit", class: "suspicious", make: on("luajit", "stdin=tcp4")},
	{name: "lua5.4", class: "suspicious", make: on("lua5.4", "stdin=tcp4")},
	{name: "busybox", class: "suspicious", make: on("busybox", "stdin=tcp4")},
	{name: "nc.traditional", class: "suspicious", make: on("nc.traditional", "stdin=tcp4")},
	{name: "ncat", class: "suspicious", make: on("ncat", "stdin=tcp4")},
	{name: "socat", class: "suspicious", make: on("socat", "stdin=tcp4")},
	{name: "sshd", class: "system", make: on("sshd", "stdin=tcp4", "stdout=tcp4")},
	{name: "shell, but longer", class: "system", make: on("shells", "stdin=tcp4")},
	{name: "pythonic", class: "system", make: on("pythonic", "stdin=tcp4")},
	{name: "a digit in the middle", class: "system", make: on("p3rl", "stdin=tcp4")},
	{name: "nothing but digits", class: "system", make: on("5.4", "stdin=tcp4")},
	{name: "a name of 15 bytes", class: "system", make: on("nc.traditionalx", "stdin=tcp4")},
	{name: "a long name", class: "system", make: on("bash-with-a-long-name", "stdin=tcp4")},
	{name: "interpreter with a long version", class: "system", make: on("python3.11.2-1234567", "stdin=tcp4")},
}
