#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After a removal. Only deb's purge takes away the configuration and the user.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ "$1" = purge ]; then
  rm -rf /etc/security-exporter
  if getent passwd security-exporter >/dev/null; then userdel security-exporter || true; fi
  if getent group security-exporter >/dev/null; then groupdel security-exporter || true; fi
fi
