// SPDX-License-Identifier: Apache-2.0

//go:build !emulated

package testkit

// Rounds is how often the tests make each thing happen.
const Rounds = 500

// Few is how often where each time takes long.
const Few = 20

// Streams says that tests which look at no events have them made all the same.
const Streams = true
