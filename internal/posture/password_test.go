// SPDX-License-Identifier: Apache-2.0

package posture

import "testing"

func TestPassword(t *testing.T) {
	t.Parallel()
	golden(t, passwordCollector)
}
