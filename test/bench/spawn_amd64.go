// SPDX-License-Identifier: Apache-2.0

package bench

// spawn runs a program as cheaply as Linux can, as vfork(2) and execve(2), and
// returns its pid or -errno. The calling thread must have all signals blocked:
// until the exec, the child runs in this process's memory.
//
//go:noescape
func spawn(path *byte, argv, envv **byte) int
