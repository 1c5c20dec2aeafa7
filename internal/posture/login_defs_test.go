// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"maps"
	"strings"
	"testing"
)

func TestLoginDefs(t *testing.T) {
	t.Parallel()
	golden(t, loginDefsCollector)
}

func TestParseLoginDefs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	got, err := parseLoginDefs(strings.NewReader("#UID_MIN 1\n \tA\t1 \nB \"two words\" tail\nC\nD  \nE \"\"\nA 2\r\n#\nLONG " + long + "\nLAST 1"))
	want := map[string]string{"A": "2", "B": "two words", "E": "", "LONG": long, "LAST": "1"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLoginDefsNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"022": 18, "0x7F": 127, "-1": -1, "99999": 99999, "0": 0, "00": 0, "0177": 127,
		"022x": -99, "": -99, "1_0": -99, "0b1": -99, "0o17": -99, "9999999999999999999": -99,
	} {
		n, ok := loginDefsNumber(text)
		if !ok {
			n = -99
		}
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}

func FuzzParseLoginDefs(f *testing.F) {
	f.Add("PASS_MAX_DAYS\t99999\nUMASK 022\nENV_PATH \"PATH=/bin\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		settings, _ := parseLoginDefs(strings.NewReader(s))
		for k, v := range settings {
			if k == "" || strings.ContainsAny(k, " \t\n") || strings.ContainsAny(v, "\"\n") {
				t.Errorf("%q %q from %q", k, v, s)
			}
			loginDefsNumber(v)
		}
	})
}
