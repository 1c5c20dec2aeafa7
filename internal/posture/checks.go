// SPDX-License-Identifier: Apache-2.0

package posture

// CheckIDs lists the checks in the order of docs/checks.md.
func CheckIDs() []string { return nil }
