// SPDX-License-Identifier: Apache-2.0

package posture

import "testing"

func TestSudo(t *testing.T) {
	t.Parallel()
	golden(t, sudoCollector)
}
