// SPDX-License-Identifier: Apache-2.0

//go:build !emulated

package testkit

// Rounds is how often the tests make each thing happen.
const Rounds = 500
