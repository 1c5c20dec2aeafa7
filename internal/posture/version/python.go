// SPDX-License-Identifier: Apache-2.0

package version

import (
	"context"
	"path"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
)

// Python distributions: *.dist-info with METADATA, entry_points.txt and
// top_level.txt, in the site-packages of the environment that the script
// belongs to (PyPA's "Recording installed projects" and "Entry points").

// maxDists is how many distributions of an environment are looked at.
const maxDists = 512

// readPython identifies the distribution that installed a script, or that has
// a module. A script of no distribution is nothing.
func readPython(ctx context.Context, root *hostfs.Tree, p program, exe string) found {
	name, script := path.Base(p.path), true
	if p.kind == kindModule {
		name, _, _ = strings.Cut(p.path, ".")
		script = false
	} else if inside, ok := belowSite(p.path); ok {
		name, _, _ = strings.Cut(inside, "/")
		name = strings.TrimSuffix(name, ".py")
		script = false
	}
	seen := 0
	for _, site := range sites(ctx, root, p, exe) {
		dists, _ := root.Glob(ctx, site+"/*.dist-info")
		// A distribution of that name is the likely one, so it is asked first.
		slices.SortStableFunc(dists, func(a, b string) int { return bool2int(sameProject(b, name)) - bool2int(sameProject(a, name)) })
		for _, dist := range dists {
			if seen++; seen > maxDists || ctx.Err() != nil {
				return found{}
			}
			if provides(ctx, root, dist, name, script) {
				return readMetadata(ctx, root, dist)
			}
		}
	}
	return found{}
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sites are the directories that may hold the distributions: where the script
// lies, the environment of its bin directory, that of the interpreter as it
// was called, and that of the executable.
func sites(ctx context.Context, root *hostfs.Tree, p program, exe string) []string {
	var out []string
	if p.kind == kindPython {
		if inside, ok := belowSite(p.path); ok {
			out = append(out, strings.TrimSuffix(p.path, "/"+inside))
		}
	}
	for _, file := range []string{p.path, p.argv0, exe} {
		if !path.IsAbs(file) || path.Base(path.Dir(file)) != "bin" {
			continue
		}
		prefix := path.Dir(path.Dir(file))
		libs, _ := root.Glob(ctx, path.Join(prefix, "lib")+"/python3*")
		for _, lib := range libs[:min(len(libs), 8)] {
			out = append(out, lib+"/site-packages", lib+"/dist-packages")
		}
	}
	slices.Sort(out[min(1, len(out)):])
	return slices.Compact(out)
}

// belowSite is the part of a path below its site-packages.
func belowSite(p string) (string, bool) {
	for _, dir := range []string{"/site-packages/", "/dist-packages/"} {
		if i := strings.LastIndex(p, dir); i >= 0 {
			return p[i+len(dir):], true
		}
	}
	return "", false
}

// sameProject compares the name in NAME-VERSION.dist-info.
func sameProject(dist, name string) bool {
	project, _, _ := strings.Cut(path.Base(dist), "-")
	return normalised(project) == normalised(name)
}

// normalised is a project name as PEP 503 compares it.
func normalised(s string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, s))
}

// provides tells whether a distribution installed the script, or has the
// module of that name.
func provides(ctx context.Context, root *hostfs.Tree, dist, name string, script bool) bool {
	file := "top_level.txt"
	if script {
		file = "entry_points.txt"
	}
	b, err := root.ReadLimit(ctx, dist+"/"+file, hostfs.ValueLimit)
	if err == nil && script {
		return definesScript(string(b), name)
	}
	if err == nil && slices.Contains(strings.Fields(string(b)), name) {
		return true
	}
	return !script && sameProject(dist, name)
}

// definesScript looks for "name = module:function" among the scripts.
func definesScript(text, name string) bool {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if ok && strings.TrimSpace(key) == name && (section == "[console_scripts]" || section == "[gui_scripts]") {
			return true
		}
	}
	return false
}

func readMetadata(ctx context.Context, root *hostfs.Tree, dist string) found {
	b, err := root.ReadLimit(ctx, dist+"/METADATA", MaxRead)
	if err != nil {
		return found{}
	}
	return parseMetadata(string(b))
}

// parseMetadata reads the header, which a blank line ends.
func parseMetadata(text string) found {
	got := found{source: DistInfo}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || key[:min(1, len(key))] == " " {
			continue
		}
		switch strings.ToLower(key) {
		case "name":
			got.app = strings.TrimSpace(value)
		case "version":
			got.version = plausible(value)
		}
	}
	return got
}
