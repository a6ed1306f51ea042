#!/bin/sh
# Write the lists beside this script anew, from constraints.txt: every package of an installation with the SHA-256 of
# each file that the package index has of it. Needs uv; run it whenever constraints.txt changes.
#   client.txt, server.txt  a side's packages, without PyTorch
#   torch.txt               PyTorch and the CUDA libraries that its usual build brings along
#   build.txt               what makes MSFL's own wheel
set -eu
command -v uv > /dev/null || { echo "update.sh: needs uv, which .venv/bin has: PATH=.venv/bin:\$PATH" >&2; exit 1; }
here=$(dirname "$0")
cd "$here/../.."
compile() {
    uv pip compile --constraint deploy/constraints.txt --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet "$@"
}
of_torch='^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)=='
select_packages() { # yes: PyTorch's, no: the others
    awk -v wanted="$1" -v of_torch="$of_torch" '/^[a-z]/ { found = $0 ~ of_torch ? "yes" : "no" } found == wanted'
}
compile pyproject.toml --extra client | select_packages no > "$here/client.txt"
compile pyproject.toml --extra server --extra tracking | select_packages no > "$here/server.txt"
compile pyproject.toml | select_packages yes > "$here/torch.txt"
echo hatchling | compile - > "$here/build.txt"
