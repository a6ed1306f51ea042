#!/bin/sh
# The account that MSFL runs as in its images, and the folders that it may write to.
set -eu
groupadd --gid 10001 msfl
useradd --uid 10001 --gid msfl --no-create-home --home-dir /tmp --shell /usr/sbin/nologin msfl
install --directory --owner msfl --group msfl --mode 0700 /study /site /artifacts
