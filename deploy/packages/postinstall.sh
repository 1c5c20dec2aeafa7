#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After an install or upgrade. deb passes "configure OLD", rpm how many
# versions there are, apk the new version and, for an upgrade, the old one.
set -e
upgrade=false
case "$1" in
abort-*) exit 0 ;;
configure | *.*) [ -z "$2" ] || upgrade=true ;;
2) upgrade=true ;;
esac
command -v systemctl >/dev/null || exit 0
# preset does what the distribution wants of new services, also without systemd running.
$upgrade || systemctl --no-reload preset security-exporter.service >/dev/null 2>&1 || true
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || true
if $upgrade; then
  systemctl try-restart security-exporter.service || true
elif systemctl --quiet is-enabled security-exporter.service; then
  systemctl start security-exporter.service || true
fi
