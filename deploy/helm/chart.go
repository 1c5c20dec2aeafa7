// SPDX-License-Identifier: Apache-2.0

// Package helm holds the Helm chart, and the tests that render it as helm does.
package helm
