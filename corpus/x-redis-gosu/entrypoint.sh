#!/bin/sh
set -e
chown -R redis . || true
exec gosu redis "$@"
