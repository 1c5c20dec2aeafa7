#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Before an install or upgrade, on deb, rpm and apk: the user of the service.
set -e
getent group security-exporter >/dev/null || {
  if command -v groupadd >/dev/null; then groupadd --system security-exporter; else addgroup -S security-exporter; fi
}
getent passwd security-exporter >/dev/null || {
  if command -v useradd >/dev/null; then
    useradd --system --gid security-exporter --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin security-exporter
  else
    adduser -S -D -H -h /nonexistent -s /sbin/nologin -G security-exporter security-exporter
  fi
}
