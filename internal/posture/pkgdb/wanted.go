// SPDX-License-Identifier: Apache-2.0

package pkgdb

import "strings"

// wanted is the set of paths whose owner is looked for.
type wanted struct {
	// alias is every spelling of a wanted path to that path, without the
	// leading slash. An exact spelling wins over one that merging /usr made.
	alias map[string]target
	exact map[string]bool
	owner map[string]Owner
	left  int
}

type target struct {
	path  string
	exact bool
}

// mergedDirs are the directories that a merged /usr turned into links. The
// kernel names /usr/bin/x where a package may still list /bin/x, and the
// reverse happens on a host that has not merged them.
var mergedDirs = [...]string{"bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/"}

func newWanted(paths []string) *wanted {
	w := &wanted{alias: make(map[string]target), exact: make(map[string]bool), owner: make(map[string]Owner)}
	for _, p := range paths {
		name := strings.TrimPrefix(p, "/")
		if name == "" {
			continue
		}
		if w.alias[name].path != p {
			w.left++
		}
		w.alias[name] = target{p, true}
	}
	for _, p := range paths {
		for _, other := range aliases(strings.TrimPrefix(p, "/")) {
			if _, taken := w.alias[other]; !taken {
				w.alias[other] = target{p, false}
			}
		}
	}
	return w
}

// aliases are the other spellings of a path on a host with merged /usr, and
// with merged bin and sbin below it.
func aliases(name string) []string {
	bare, inUsr := strings.CutPrefix(name, "usr/")
	merged := false
	for _, d := range mergedDirs {
		merged = merged || strings.HasPrefix(bare, d)
	}
	if !merged {
		return nil
	}
	var out []string
	if inUsr {
		out = append(out, bare)
	} else {
		out = append(out, "usr/"+name)
	}
	if file, ok := strings.CutPrefix(bare, "bin/"); ok {
		out = append(out, "usr/sbin/"+file, "sbin/"+file)
	} else if file, ok := strings.CutPrefix(bare, "sbin/"); ok {
		out = append(out, "usr/bin/"+file, "bin/"+file)
	}
	return out
}

// lengths are those of the spellings, in bytes.
func (w *wanted) lengths() map[int]bool {
	out := make(map[int]bool)
	for name := range w.alias {
		out[len(name)] = true
	}
	return out
}

// has tells whether a path of a file list, with or without leading slash, is
// one that is looked for.
func (w *wanted) has(name string) bool {
	_, ok := w.alias[strings.TrimPrefix(name, "/")]
	return ok
}

// found records an owner. The first package that lists the exact path stays.
func (w *wanted) found(name string, o Owner) {
	t, ok := w.alias[strings.TrimPrefix(name, "/")]
	if !ok {
		return
	}
	_, had := w.owner[t.path]
	if had && (!t.exact || w.exact[t.path]) {
		return
	}
	w.owner[t.path] = o
	w.exact[t.path] = t.exact
	if !had {
		w.left--
	}
}

func (w *wanted) done() bool { return w.left == 0 }
