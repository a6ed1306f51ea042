"""The lists of files that an installation is made of: complete, in line with constraints.txt, accepted by pip."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.services import DEPLOY

LISTS = DEPLOY / "requirements"
SIDES = {"client": ["client"], "server": ["server", "tracking"]}
OF_CUDA = re.compile(r"nvidia-|cuda-|triton$")


def pinned(path: Path) -> dict[str, str]:
    """Version by name; each entry of a list with hashes has some."""
    found = re.findall(
        r"^([A-Za-z0-9][\w.-]*)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", path.read_text(), re.M
    )
    assert path.name == "constraints.txt" or all(hashes for *_, hashes in found), path
    return {canonicalize_name(name): version for name, version, _ in found}


CONSTRAINTS = pinned(DEPLOY / "constraints.txt")


@pytest.mark.parametrize("path", sorted(LISTS.glob("*.txt")), ids=lambda path: path.name)
def test_the_versions_are_those_that_are_tested(path: Path) -> None:
    """CUDA's libraries are not: no GPU tests them here."""
    versions = {name: version for name, version in pinned(path).items() if not OF_CUDA.match(name)}
    assert versions
    assert versions.items() <= CONSTRAINTS.items()


@pytest.mark.parametrize("side", SIDES)
def test_nothing_is_missing(side: str) -> None:
    """Whatever MSFL needs for a side, and what that needs in turn, on this machine."""
    listed = pinned(LISTS / f"{side}.txt") | pinned(LISTS / "torch.txt")
    left, seen = [("msfl", frozenset(SIDES[side]))], set()
    while left:
        name, extras = left.pop()
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # CUDA's libraries, where PyTorch is a CPU build
        for one in needed:
            wanted = any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
            key = (canonicalize_name(one.name), frozenset(one.extras))
            if wanted and key not in seen:
                seen.add(key)
                left.append(key)
    missing = {name for name, _ in seen if name not in listed and name != "msfl" and not OF_CUDA.match(name)}
    assert missing == set()


@pytest.mark.parametrize("side", SIDES)
def test_pip_accepts_the_lists(side: str) -> None:
    """All is installed here, so that nothing is fetched."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps", "--require-hashes"]
    lists = [part for name in (side, "build") for part in ("--requirement", str(LISTS / f"{name}.txt"))]
    done = subprocess.run([*command, *lists], capture_output=True, text=True)
    assert (done.returncode, "Would install" in done.stdout) == (0, False), done.stderr


def test_no_list_says_where_files_come_from() -> None:
    for path in LISTS.glob("*.txt"):
        assert not re.search(r"://|--(extra-)?index-url|--find-links", path.read_text()), path
