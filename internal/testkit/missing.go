// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"os"
	"testing"
)

// Missing ends a test that has not what it needs: it is skipped, but fails
// where the environment variable CI is set, since .ci/run installs everything.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// InMachine says that the test runs in a machine of tools/testkernels, where
// nothing withholds anything from root.
func InMachine() bool { return os.Getenv("SECURITY_EXPORTER_TEST_MACHINE") != "" }
