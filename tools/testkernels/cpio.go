// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

// cpio writes an archive as the kernel unpacks it
// (Documentation/driver-api/early-userspace/buffer-format.rst). Everything in
// it belongs to root.
type cpio struct {
	out   io.Writer
	inode int
	err   error
}

func (c *cpio) entry(name string, mode, major, minor int, content []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	padded := func(n int) string { return strings.Repeat("\x00", (4-n%4)%4) }
	if _, c.err = io.WriteString(c.out, header+name+"\x00"+padded(len(header)+len(name)+1)); c.err != nil {
		return
	}
	if _, c.err = c.out.Write(content); c.err == nil {
		_, c.err = io.WriteString(c.out, padded(len(content)))
	}
}

func (c *cpio) folder(name string, mode int) { c.entry(name, 0o040000|mode, 0, 0, nil) }
func (c *cpio) file(name string, content []byte, mode int) {
	c.entry(name, 0o100000|mode, 0, 0, content)
}
func (c *cpio) link(name, target string)             { c.entry(name, 0o120777, 0, 0, []byte(target)) }
func (c *cpio) device(name string, major, minor int) { c.entry(name, 0o020600, major, minor, nil) }
func (c *cpio) end()                                 { c.entry("TRAILER!!!", 0, 0, 0, nil) }
