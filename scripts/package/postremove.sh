#!/bin/sh
# After removing: what readers have stored stays in /var/lib/sbcast.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
