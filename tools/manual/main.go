// SPDX-License-Identifier: Apache-2.0

// Command manual writes the manual page and the completions of bash, zsh and
// fish into a folder, for the packages.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"security-exporter/internal/buildinfo"
	"security-exporter/internal/config"
	"security-exporter/internal/registry"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manual FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, flag := range map[string]string{
		"security-exporter.1":    "--help-man",
		"security-exporter.bash": "--completion-script-bash",
		"security-exporter.zsh":  "--completion-script-zsh",
	} {
		err := toFile(filepath.Join(dir, name), func(f *os.File) error {
			// kingpin writes these to os.Stdout, whatever it is told.
			stdout := os.Stdout
			defer func() { os.Stdout = stdout }()
			os.Stdout = f
			known := registry.Known()
			known.Version = buildinfo.Name
			if _, err := config.Parse([]string{flag}, known, f); !errors.Is(err, config.ErrPrinted) {
				return fmt.Errorf("%s: %w", flag, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return toFile(filepath.Join(dir, "security-exporter.fish"), func(f *os.File) error {
		return config.WriteFish(f, registry.Known())
	})
}

func toFile(path string, fill func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}
