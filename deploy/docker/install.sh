#!/bin/sh
# Install MSFL with the versions that were tested together: install.sh SOURCE EXTRAS
#   SOURCE       the repository's folder
#   EXTRAS       client, server or server,tracking
#   MSFL_HOME    virtual environment to make or to go on with (default /opt/msfl)
#   TORCH_INDEX  where PyTorch comes from, such as PyTorch's own index of CPU builds (default: where all else does)
set -eu
source=$1
extras=$2
home=${MSFL_HOME:-/opt/msfl}

test -x "$home/bin/python" || python3 -m venv "$home"
install() {
    "$home/bin/python" -m pip --disable-pip-version-check --no-input install \
        --no-cache-dir --constraint "$source/deploy/constraints.txt" "$@"
}
install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
install "${source}[$extras]"
