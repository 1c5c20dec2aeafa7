// SPDX-License-Identifier: Apache-2.0

//go:build emulated

package testkit

// Rounds is how often the tests make each thing happen. An emulated machine is
// some ten times as slow, and what it shows, a rung that misses something on
// that kernel, shows early. A multiple of what tests divide it by.
const Rounds = 20

// Few is how often where each time takes long.
const Few = 5

// Streams says that tests which look at no events have them made all the same.
// The verifier goes through some ten times as much for them, again for each test.
const Streams = false
