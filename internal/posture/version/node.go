// SPDX-License-Identifier: Apache-2.0

package version

import (
	"context"
	"encoding/json"
	"path"

	"security-exporter/internal/hostfs"
)

// maxUp is how many directories above a script are searched.
const maxUp = 16

// readNode identifies a Node application by the nearest package.json above
// its script that has a name: npm's package.json(5). One without is a mark for
// a directory of modules.
func readNode(ctx context.Context, root *hostfs.Tree, script string) found {
	dir := path.Dir(script)
	for range maxUp {
		if ctx.Err() != nil {
			break
		}
		if b, err := root.ReadLimit(ctx, path.Join(dir, "package.json"), MaxRead); err == nil {
			if got := parsePackageJSON(b); got.app != "" {
				return got
			}
		}
		if dir == "/" || dir == "." {
			break
		}
		dir = path.Dir(dir)
	}
	return found{}
}

func parsePackageJSON(b []byte) found {
	var p struct{ Name, Version string }
	if json.Unmarshal(b, &p) != nil {
		return found{}
	}
	return found{app: p.Name, version: plausible(p.Version), source: PackageJSON}
}
