#!/bin/sh
# Before removing (deb: remove, rpm: 0): an upgrade stops nothing.
set -e
case $1 in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now sbcast-broadcaster-http.socket sbcast-broadcaster.socket sbcast-broadcaster.service \
			sbcast-reader.socket sbcast-reader.service || true
	fi
	;;
esac
