// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"io"
	"strconv"
	"strings"
)

// cronForm is how the lines of a file begin.
type cronForm int

const (
	// cronUser files belong to a user: five fields and the command.
	cronUser cronForm = iota
	// cronSystem files name the user between the fields and the command.
	cronSystem
	// cronAnacron files have period, delay and name before the command
	// (anacrontab(5)).
	cronAnacron
)

// cronLine is one job of crontab(5) or anacrontab(5).
type cronLine struct {
	// schedule is the fields or the @name with single blanks, user is empty in
	// a file of a user, command is what the shell gets, without the input
	// behind the first "%".
	schedule, user, command string
	line                    int
}

// parseCrontab returns the jobs and the number of lines that cron ignores
// because they are neither a job nor a setting.
func parseCrontab(r io.Reader, form cronForm) (jobs []cronLine, invalid int, err error) {
	lines := configLines(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.Trim(lines.Text(), " \t\r")
		if line == "" || line[0] == '#' || isCronSetting(line) {
			continue
		}
		job, ok := parseCronLine(line, form)
		if !ok {
			invalid++
			continue
		}
		job.line = n
		jobs = append(jobs, job)
	}
	return jobs, invalid, lines.Err()
}

// isCronSetting is whether a line is NAME = value, the name possibly quoted. An
// empty value needs quotes.
func isCronSetting(line string) bool {
	name, value, ok := strings.Cut(line, "=")
	if !ok || strings.Trim(value, " \t") == "" {
		return false
	}
	name = strings.TrimRight(name, " \t")
	if len(name) > 1 && (name[0] == '"' || name[0] == '\'') {
		return name[len(name)-1] == name[0] && strings.Count(name, name[:1]) == 2
	}
	return name != "" && !strings.ContainsAny(name, " \t\"'")
}

func parseCronLine(line string, form cronForm) (cronLine, bool) {
	var job cronLine
	fields := len(cronFields)
	switch {
	case line[0] == '@':
		fields = 1
	case form == cronAnacron:
		fields = 1
	}
	words, rest := cutWords(line, fields)
	job.schedule = strings.Join(words, " ")
	ok := len(words) == fields
	switch {
	case !ok:
	case line[0] == '@':
		ok = cronNames[words[0]]
	case form == cronAnacron:
		ok = cronNumber(words[0], 1, 1<<20)
	default:
		ok = validCronFields(words)
	}
	if !ok {
		return job, false
	}
	switch form {
	case cronSystem:
		words, rest = cutWords(rest, 1)
		job.user = strings.Join(words, "")
	case cronAnacron:
		words, rest = cutWords(rest, 2)
		ok = len(words) == 2 && cronNumber(words[0], 0, 1<<20)
		job.user = "root"
	}
	job.command = cronCommand(rest, form)
	return job, ok && job.command != "" && (job.user != "" || form == cronUser)
}

// cutWords splits n words off.
func cutWords(s string, n int) (words []string, rest string) {
	for range n {
		s = strings.TrimLeft(s, " \t")
		end := strings.IndexAny(s, " \t")
		if end < 0 {
			end = len(s)
		}
		if end == 0 {
			break
		}
		words = append(words, s[:end])
		s = s[end:]
	}
	return words, strings.TrimLeft(s, " \t")
}

// cronCommand is what comes before the first "%" without a backslash: the rest
// is the input of the command. anacron has no such rule.
func cronCommand(s string, form cronForm) string {
	if form == cronAnacron {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '%':
			i++
			b.WriteByte('%')
		case s[i] == '%':
			return strings.TrimRight(b.String(), " \t")
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// cronNames are the words for a schedule, those of systemd-cron included.
var cronNames = map[string]bool{
	"@reboot": true, "@yearly": true, "@annually": true, "@monthly": true, "@weekly": true, "@daily": true,
	"@midnight": true, "@hourly": true, "@minutely": true, "@quarterly": true, "@semi-annually": true,
	"@semiannually": true, "@bi-annually": true, "@biannually": true,
}

// cronField is the range of one field with the names it may have.
type cronField struct {
	low, high int
	names     string
}

var cronFields = [...]cronField{
	{0, 59, ""}, {0, 23, ""}, {1, 31, ""},
	{1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"},
	{0, 7, "sun mon tue wed thu fri sat"},
}

// validCronFields checks minute, hour, day of month, month and day of week. A
// leading "-" keeps the job out of the log.
func validCronFields(words []string) bool {
	for i, f := range cronFields {
		w := words[i]
		if i == 0 {
			w = strings.TrimPrefix(w, "-")
		}
		for part := range strings.SplitSeq(w, ",") {
			if !f.valid(part) {
				return false
			}
		}
	}
	return true
}

// valid takes one element of a list: *, a value, a range with "-", a random
// value of a range with "~" (cronie), each with or without a step.
func (f cronField) valid(s string) bool {
	s, step, stepped := strings.Cut(s, "/")
	if stepped && !cronNumber(step, 1, 1<<20) {
		return false
	}
	if s == "*" {
		return true
	}
	if low, high, ok := strings.Cut(s, "~"); ok {
		return (low == "" || f.value(low) >= 0) && (high == "" || f.value(high) >= 0)
	}
	low, high, ok := strings.Cut(s, "-")
	a := f.value(low)
	if !ok {
		// A step needs a range.
		return a >= 0 && !stepped
	}
	// Debian's cron takes a range that ends before it begins, and never runs it.
	return a >= 0 && f.value(high) >= 0
}

// value is the number of a value or name, -1 if it is none.
func (f cronField) value(s string) int {
	if n, err := strconv.Atoi(s); err == nil && cronNumber(s, f.low, f.high) {
		return n
	}
	for i, name := range strings.Fields(f.names) {
		if strings.EqualFold(s, name) {
			return f.low + i
		}
	}
	return -1
}

// cronNumber is whether s is a number of digits within the range.
func cronNumber(s string, low, high int) bool {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return false
	}
	n, err := strconv.Atoi(s)
	return err == nil && n >= low && n <= high
}
