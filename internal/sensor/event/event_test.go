// SPDX-License-Identifier: Apache-2.0

package event

import "testing"

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	var e Event
	if err := e.Decode(make([]byte, RecordSize)); err != nil {
		t.Error(err)
	}
	if err := e.Decode(make([]byte, RecordSize-1)); err == nil {
		t.Error("a short record was decoded")
	}
}
