#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Before a removal; on an upgrade (deb "upgrade", rpm 1) nothing happens.
set -e
case "$1" in upgrade | failed-upgrade | 1) exit 0 ;; esac
command -v systemctl >/dev/null || exit 0
if [ -d /run/systemd/system ]; then
  systemctl --no-reload disable --now security-exporter.service || true
else
  systemctl --no-reload disable security-exporter.service >/dev/null 2>&1 || true
fi
