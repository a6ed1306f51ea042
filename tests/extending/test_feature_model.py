"""A kind of feature model is two files and a line: one is added to a copy of the packages, and trained there."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SIDES = ("common", "client", "server")
HERE = Path(__file__).parent
FILES = {
    "common/msfl_common/feature_models/shrunken_centroids.py": HERE / "example_feature_model.py",
    "client/msfl_client/classification/feature_models/shrunken_centroids.py": HERE / "example_feature_model_site.py",
}
FILES_TOUCHED = (
    "common/msfl_common/feature_models/shrunken_centroids.py",
    "client/msfl_client/classification/feature_models/shrunken_centroids.py",
    "common/msfl_common/feature_models/registry.py",
)
REGISTRY = "common/msfl_common/feature_models/registry.py"
LINE = '    "shrunken-centroids": "shrunken_centroids.ShrunkenCentroids",\n'


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three packages, with another kind of model."""
    root = tmp_path_factory.mktemp("extended")
    for side in SIDES:
        shutil.copytree(REPOSITORY / side, root / side, ignore=shutil.ignore_patterns("__pycache__"))
    for place, source in FILES.items():
        shutil.copy(source, root / place)
    registry = (root / REGISTRY).read_text()
    (root / REGISTRY).write_text(registry.replace('    "mlp":', LINE + '    "mlp":', 1))
    return root


def run(root: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    paths = [*(str(root / side) for side in SIDES), str(REPOSITORY)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def changed(one: Path, other: Path) -> set[str]:
    """Files that differ, or that one of two folders lacks."""
    found = set()
    for side in SIDES:
        for path in {p.relative_to(folder) for folder in (one, other) for p in (folder / side).rglob("*.py")}:
            both = [folder / path for folder in (one, other)]
            if not all(p.exists() for p in both) or not filecmp.cmp(*both, shallow=False):
                found.add(str(path))
    return found


@pytest.mark.slow
def test_a_kind_of_model_is_two_files_and_a_line(extended: Path, tmp_path: Path) -> None:
    assert changed(extended, REPOSITORY) == set(FILES_TOUCHED)
    before, after = (len((root / REGISTRY).read_text().splitlines()) for root in (REPOSITORY, extended))
    assert after == before + 1
    done = run(extended, "-m", "tests.extending.feature_model_study", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["installed"] == str(extended / "common" / "msfl_common")
    assert (found["kind"], found["is_refused"], found["rounds"], found["updates"]) == (
        "shrunken-centroids",
        False,
        2,
        2,
    )
    assert found["difference"] < 1e-9
    assert found["spread"] > 0.1
    assert found["auroc"] > 0.55
    assert any(found["explained"].values())
    assert list(found["explained"]) == ["bpf", "log_lesion_volume", "age", "edss"]


WITHOUT_HALF = """
from msfl_client.classification.feature_models.site_half import site_half_of
from msfl_common.config.classification import Classification
model = {"kind": "shrunken-centroids"}
settings = Classification.model_validate({"outcome": {"endpoint": "activity"}, "model": model})
site_half_of(settings)
"""


@pytest.mark.slow
def test_a_kind_without_its_half_at_the_site_is_named(extended: Path) -> None:
    place = "client/msfl_client/classification/feature_models/shrunken_centroids.py"
    half = extended / place
    half.unlink()
    try:
        done = run(extended, "-c", WITHOUT_HALF)
    finally:
        shutil.copy(FILES[place], half)
    assert "UnknownModelError: shrunken-centroids: expected a site's half, ShrunkenCentroidsSite in" in done.stderr
