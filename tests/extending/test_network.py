"""A network is a file and a line: one is added to a copy of the package, trained among sites, and predicts."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example_network.py"
FILE, REGISTRY = "networks/dilated.py", "networks/registry.py"
LINE = "from msfl_common.networks.dilated import Dilated as Dilated\n"
STUDY = """
name: tiny
min_patients: 1
inputs: {spacing_mm: 4.0}
network: {kind: dilated, dimensions: 2, maps: 4, reaches: [1, 2]}
training: {steps_per_round: 2, batch_size: 1, patch_voxels: 13}
rounds: {num_rounds: 2, quorum: 2}
"""


FILES_TOUCHED = ("common/msfl_common/networks/dilated.py", "common/msfl_common/networks/registry.py")


def extended(folder: Path) -> Path:
    """The package that both sides share, with the example's file and its line."""
    package = folder / "msfl_common"
    shutil.copytree(
        REPOSITORY / "common" / "msfl_common", package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    shutil.copyfile(EXAMPLE, package / FILE)
    text = (package / REGISTRY).read_text()
    before = "from msfl_common.networks.dynunet import"
    (package / REGISTRY).write_text(text.replace(before, LINE + before))
    return package


def touched(package: Path) -> list[str]:
    """Files that differ from the repository's."""
    own = REPOSITORY / "common" / "msfl_common"
    return sorted(
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if not (own / path.relative_to(package)).exists()
        or not filecmp.cmp(path, own / path.relative_to(package), shallow=False)
    )


@pytest.fixture
def add(make_site: Callable[..., object], tmp_path: Path) -> Path:
    """A folder with two sites of three patients, and a study of the new network."""
    for letter in "ab":
        make_site(f"site-{letter}", [f"sub-{letter}{number}" for number in range(3)])
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


@pytest.mark.slow
def test_a_network_is_a_file_and_a_line(add: Path) -> None:
    package = extended(add / "copy")
    assert [f"common/msfl_common/{file}" for file in touched(package)] == list(FILES_TOUCHED)
    own = REPOSITORY / "common" / "msfl_common"
    after, before = (len((root / REGISTRY).read_text().splitlines()) for root in (package, own))
    assert after == before + 1
    paths = os.pathsep.join(map(str, (package.parent, REPOSITORY)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.extending.network_study", str(add / "study.yaml"), str(add)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["package"] == str(package)
    assert found["kind"] == "dilated"
    assert found["settings"] == [f"network.{name}" for name in ("kind", "dimensions", "maps", "reaches")]
    assert [name for name in found["unmoved"] if "bias" not in name] == []
    assert found["rounds"] == 2
    assert found["predicted"] == ["ok"] * 3
