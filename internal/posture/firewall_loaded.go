// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"context"
	"errors"
	"strings"

	"security-exporter/internal/hostfs"
)

// loadedRules reads the packet filter of one process's network namespace. Use
// it from one goroutine.
type loadedRules struct {
	pid  int
	nft  nftCache
	core struct{ known, builtIn bool }
}

// read returns all tables. It loads no kernel module: nftables is asked only
// if it is there, legacy iptables only for tables that exist.
func (l *loadedRules) read(ctx context.Context, root *hostfs.Root) (ruleset, error) {
	present, err := l.nftPresent(ctx, root)
	if err != nil {
		return nil, err
	}
	var tables ruleset
	var limit error
	err = inNetNS(ctx, root, l.pid, func() error {
		if present {
			tables, limit, err = l.nft.read(ctx)
			if err != nil {
				return err
			}
		}
		legacy, err := readLegacy(ctx, root, l.pid)
		tables = append(tables[:len(tables):len(tables)], legacy...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tables, Partial(limit)
}

// nftPresent is whether the kernel has nftables loaded. A request to a kernel
// that has it as a module not loaded would load it.
func (l *loadedRules) nftPresent(ctx context.Context, root *hostfs.Root) (bool, error) {
	_, err := root.Sysfs.Stat(ctx, "/module/nf_tables")
	if err == nil || !errors.Is(err, hostfs.ErrNotExist) {
		return err == nil, err
	}
	_, err = root.Procfs.Stat(ctx, "/modules")
	if errors.Is(err, hostfs.ErrNotExist) {
		return true, nil // no module support, so nothing can be loaded
	}
	if err != nil {
		return false, err
	}
	if !l.core.known {
		builtIn, err := nftBuiltIn(ctx, root.Procfs)
		if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			return false, err
		}
		l.core.known, l.core.builtIn = true, builtIn
	}
	return l.core.builtIn, nil
}

// nftBuiltIn looks for a function of nf_tables among the kernel's symbols.
// Those of modules come last and have the module's name behind them.
func nftBuiltIn(ctx context.Context, proc *hostfs.Tree) (bool, error) {
	f, err := proc.Open(ctx, "/kallsyms")
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), " nft_register_expr") {
			return true, nil
		}
	}
	return false, lines.Err()
}
