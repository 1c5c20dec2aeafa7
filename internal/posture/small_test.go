// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state  int
		status int32
		err    error
		want   string
	}{
		{unix.TIME_OK, unix.STA_PLL, nil, "linux_security_time_synchronized 1\n"},
		{unix.TIME_INS, 0, nil, "linux_security_time_synchronized 1\n"},
		{unix.TIME_ERROR, unix.STA_UNSYNC, nil, "linux_security_time_synchronized 0\n"},
		{unix.TIME_OK, unix.STA_UNSYNC, nil, "linux_security_time_synchronized 0\n"},
		{unix.TIME_ERROR, 0, nil, "linux_security_time_synchronized 0\n"},
		{0, 0, errors.New("refused"), "# error: adjtimex: refused\n"},
	} {
		spec := timeWith(func() (int, int32, error) { return c.state, c.status, c.err })
		got := string(exposition(t, spec, fixtureInput(t.TempDir(), Settings{})))
		if !strings.HasSuffix(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
	// The kernel answers without any right.
	if got := string(exposition(t, timeCollector(), fixtureInput(t.TempDir(), Settings{}))); !strings.Contains(got, "linux_security_time_synchronized ") {
		t.Errorf("%s", got)
	}
}

func TestCoreDumps(t *testing.T) {
	t.Parallel()
	golden(t, coreDumpsCollector)
}

func TestParseCoreLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"* hard core 0\n": true, "*\t-\tcore\t0 # why\n": true, "* soft core 0\n": false, "# * hard core 0\n": false,
		"@users hard core 0\n": false, "* hard core 0\n* hard core unlimited\n": false, "* hard nofile 0\n": false, "": false,
	} {
		if got, err := parseCoreLimit(strings.NewReader(text), false); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseCoreDumps(f *testing.F) {
	f.Add("* hard core 0\n[Coredump]\nStorage=none\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parseCoreLimit(strings.NewReader(s), true)
		if storage, _ := parseSystemdStorage(strings.NewReader(s), "Coredump", ""); storage != strings.TrimSpace(storage) {
			t.Errorf("%q from %q", storage, s)
		}
	})
}
