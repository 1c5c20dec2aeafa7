// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	t.Parallel()
	const bad = "�"
	long := strings.Repeat("a", MaxValueBytes)
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", "/usr/sbin/sshd", "/usr/sbin/sshd"},
		{"space", "a b", "a b"},
		{"quotes and backslash stay", `"\`, `"\`},
		{"newline", "a\nb", "a" + bad + "b"},
		{"NUL", "a\x00", "a" + bad},
		{"escape", "\x1b[31m", bad + "[31m"},
		{"DEL", "\x7f", bad},
		{"C1 control", "\u0085", bad},
		{"invalid byte", "a\xffb", "a" + bad + "b"},
		{"two invalid bytes", "\xff\xfe", bad + bad},
		{"cut character", "\xe2\x82", bad + bad},
		{"surrogate", "\xed\xa0\x80", bad + bad + bad},
		{"direction override", "a\u202eb", "a" + bad + "b"},
		{"zero width", "a\u200bb", "a" + bad + "b"},
		{"no-break space", "a\u00a0b", "a" + bad + "b"},
		{"letters of the world", "élève 日本", "élève 日本"},
		{"replacement stays", bad, bad},
		{"128 bytes", long, long},
		{"129 bytes", long + "b", long},
		{"cut between characters", strings.Repeat("a", 127) + "é", strings.Repeat("a", 127)},
		{"fits exactly", strings.Repeat("a", 126) + "é", strings.Repeat("a", 126) + "é"},
		{"short after long does not fit", strings.Repeat("a", 127) + "éb", strings.Repeat("a", 127)},
		{"invalid bytes grow", strings.Repeat("\xff", 128), strings.Repeat(bad, 42)},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("%s: Clean(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func TestCleanDoesNotAllocate(t *testing.T) {
	for _, s := range []string{"/usr/sbin/sshd", ""} {
		if n := testing.AllocsPerRun(10, func() { Clean(s) }); n != 0 {
			t.Errorf("Clean(%q) allocates %v times", s, n)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a", "\xff", "\n", strings.Repeat("é", 70), "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if len(c) > MaxValueBytes {
			t.Errorf("%q: %d bytes", s, len(c))
		}
		if !utf8.ValidString(c) {
			t.Errorf("%q: %q is not valid UTF-8", s, c)
		}
		if i := strings.IndexFunc(c, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q: %q holds something unprintable at %d", s, c, i)
		}
		if again := Clean(c); again != c {
			t.Errorf("%q: cleaned twice %q, once %q", s, again, c)
		}
	})
}
