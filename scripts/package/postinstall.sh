#!/bin/sh
# After installing or upgrading: nothing is enabled, what runs is restarted.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart sbcast-broadcaster.service sbcast-reader.service
fi
