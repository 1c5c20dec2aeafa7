// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"strings"
	"testing"
)

func TestOS(t *testing.T) {
	t.Parallel()
	golden(t, osCollector)
}

func TestShellUnquote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`plain`: "plain", `"two words"`: "two words", `'it''s'`: "its", `a\ b`: "a b",
		`"say \"hi\" \$x \n"`: `say "hi" $x \n`, `'\n'`: `\n`, `word # comment`: "word", `"open`: "open",
		`""`: "", `tail\`: `tail\`,
	} {
		if got := shellUnquote(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseOSRelease(f *testing.F) {
	f.Add("ID=debian\nNAME=\"Debian GNU/Linux\"\n# comment\n=x\n")
	f.Add("A='")
	f.Fuzz(func(t *testing.T, s string) {
		fields, err := parseOSRelease(strings.NewReader(s))
		if err != nil {
			return
		}
		for k, v := range fields {
			if !isShellName(k) || len(v) > len(s) {
				t.Errorf("%q=%q from %q", k, v, s)
			}
		}
	})
}
