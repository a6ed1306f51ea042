#!/bin/sh
# Install MSFL with the packages that were tested together, each file known by its SHA-256: install.sh SOURCE SIDE
#   SOURCE       the repository's folder
#   SIDE         client or server
#   MSFL_HOME    virtual environment to make or to go on with (default /opt/msfl)
#   TORCH_INDEX  where PyTorch comes from instead, such as PyTorch's own index of CPU builds; that one package is then
#                known by its version alone, and the CUDA libraries stay away
set -eu
source=$1
side=$2
home=${MSFL_HOME:-/opt/msfl}
lists=$source/deploy/requirements

test -x "$home/bin/python" || python3 -m venv "$home"
install() {
    "$home/bin/python" -m pip --disable-pip-version-check --no-input install --no-cache-dir --no-deps "$@"
}
if [ -n "${TORCH_INDEX:-}" ]; then
    install --index-url "$TORCH_INDEX" --constraint "$source/deploy/constraints.txt" torch
else
    install --require-hashes --requirement "$lists/torch.txt"
fi
install --require-hashes --requirement "$lists/$side.txt"
install --require-hashes --requirement "$lists/build.txt"
install --no-build-isolation "$source"
