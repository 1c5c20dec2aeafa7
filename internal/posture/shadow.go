// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// secretState says what the password field of an account allows.
type secretState uint8

const (
	// secretElsewhere is the x of passwd(5): shadow(5) has the password.
	secretElsewhere secretState = iota
	// secretEmpty needs no password.
	secretEmpty
	// secretNone is no password that crypt(5) could make: no login with one,
	// other ways such as keys still work.
	secretNone
	// secretHash is a password.
	secretHash
)

// secret is what is kept of a password field: never the hash.
type secret struct {
	state secretState
	// locked fields start with !, the state is that of the rest: what
	// unlocking would give.
	locked bool
	// scheme is one of hashSchemes where the state is secretHash.
	scheme string
}

// hashPrefixes are the schemes of crypt(5) by prefix.
var hashPrefixes = []struct{ prefix, scheme string }{
	{"$y$", "yescrypt"}, {"$gy$", "gost_yescrypt"}, {"$sm3y$", "sm3_yescrypt"}, {"$7$", "scrypt"},
	{"$2a$", "bcrypt"}, {"$2b$", "bcrypt"}, {"$2x$", "bcrypt"}, {"$2y$", "bcrypt"},
	{"$6$", "sha512crypt"}, {"$5$", "sha256crypt"}, {"$sm3$", "sm3crypt"},
	{"$sha1$", "sha1crypt"}, {"$sha1", "sha1crypt"}, {"$md5", "sunmd5"}, {"$1$", "md5crypt"}, {"$3$", "nt"},
	{"$", "other"},
}

// hashSchemes are the values of the label scheme, named as in crypt(5), the
// strongest first.
var hashSchemes = []string{
	"yescrypt", "gost_yescrypt", "sm3_yescrypt", "scrypt", "bcrypt", "sha512crypt", "sha256crypt", "sm3crypt",
	"sha1crypt", "sunmd5", "md5crypt", "bsdicrypt", "descrypt", "nt", "other",
}

// parseSecret looks at a password field. In passwd(5) x, or two # and the
// name, stand for shadow(5).
func parseSecret(field string, passwd bool) secret {
	if passwd && (field == "x" || strings.HasPrefix(field, "##")) {
		return secret{}
	}
	rest := strings.TrimLeft(field, "!")
	s := secret{locked: rest != field}
	s.scheme = hashScheme(rest)
	switch {
	case s.scheme != "":
		s.state = secretHash
	case field == "":
		s.state = secretEmpty
	default:
		s.state = secretNone
	}
	return s
}

// hashScheme names the scheme of a hash by its form, "" if crypt(3) could not
// have made it.
func hashScheme(hash string) string {
	for _, p := range hashPrefixes {
		if strings.HasPrefix(hash, p.prefix) {
			if len(hash) == len(p.prefix) {
				return ""
			}
			return p.scheme
		}
	}
	switch {
	case len(hash) == 20 && hash[0] == '_' && isHash64(hash[1:]):
		return "bsdicrypt"
	case len(hash) == 13 && isHash64(hash):
		return "descrypt"
	}
	return ""
}

func isHash64(s string) bool {
	for _, c := range []byte(s) {
		if c != '.' && c != '/' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// noDays is a field of shadow(5) that is empty.
const noDays int64 = -1

// secondsOfDay turns the days of shadow(5) into seconds.
const secondsOfDay = 24 * 60 * 60

// shadowEntry is one account of shadow(5). Times are days since 1970-01-01,
// ages are days, noDays where the field is empty.
type shadowEntry struct {
	line   int
	name   string
	secret secret

	lastChange, minAge, maxAge, warning, inactive, expires int64
}

// parseShadow reads shadow(5). With an error, the entries are those of the
// lines that are right. Errors do not quote the file.
func parseShadow(r io.Reader) ([]shadowEntry, []compatEntry, error) {
	var entries []shadowEntry
	compat, err := accountLines(shadowFile, r, func(line int, text string) error {
		f := strings.Split(text, ":")
		if len(f) < 2 {
			return errFewFields
		}
		e := shadowEntry{line: line, name: f[0], secret: parseSecret(f[1], false)}
		f = append(f, "", "", "", "", "", "")
		for i, field := range []struct {
			what string
			into *int64
		}{
			{"last change", &e.lastChange}, {"minimum age", &e.minAge}, {"maximum age", &e.maxAge},
			{"warning", &e.warning}, {"inactivity", &e.inactive}, {"expiry", &e.expires},
		} {
			var err error
			if *field.into, err = parseDays(f[2+i]); err != nil {
				return fmt.Errorf("%s: %w", field.what, err)
			}
		}
		entries = append(entries, e)
		return nil
	})
	return entries, compat, err
}

// parseDays reads a number of days as glibc does (strtoul): blanks and a sign
// before it count for nothing. A negative one makes glibc ignore the line, so it
// is an error here.
func parseDays(text string) (int64, error) {
	if text == "" {
		return noDays, nil
	}
	n, err := parseID("", text)
	if err != nil || n > math.MaxInt32 {
		return 0, fmt.Errorf("not a number of days from 0 to %d", math.MaxInt32)
	}
	return int64(n), nil
}

// expired tells whether the account is closed on the given day since
// 1970-01-01: its expiry has come, or its password was not changed within the
// grace that follows its maximum age. As in pam_unix(8), expiry 0 has come.
func (e *shadowEntry) expired(today int64) bool {
	if e.expires != noDays && today >= e.expires {
		return true
	}
	age := today - e.lastChange
	return e.lastChange > 0 && e.maxAge != noDays && e.inactive != noDays &&
		age > e.maxAge && age > e.inactive && age > e.maxAge+e.inactive
}

// mustChange tells whether the next login has to set a new password.
func (e *shadowEntry) mustChange(today int64) bool {
	switch {
	case e.expired(today):
		return false
	case e.lastChange == 0:
		return true
	case e.lastChange == noDays || e.maxAge == noDays:
		return false
	}
	return today-e.lastChange > e.maxAge
}
