// SPDX-License-Identifier: Apache-2.0

// Package apt tells where this machine gets Debian from, for tests that fetch
// packages of other releases.
package apt

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Mirror is the URL of the Debian archive in apt's sources, without a slash at
// its end: the first that is no security archive.
func Mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri := strings.TrimRight(strings.TrimSpace(line), "/"); uri != "" && !strings.HasSuffix(uri, "-security") {
			return uri, nil
		}
	}
	return "", errors.New("apt's sources have no Debian archive; run apt-get update")
}
