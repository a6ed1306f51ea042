"""A disk that fills up: one clear line, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("making a small file system needs root and mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def msfl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_full_disk_ends_a_run_with_one_line_and_it_can_go_on(small_disk: Path, tmp_path: Path, make_site) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for letter in "ab":
        site = make_site(f"cohort/site-{letter}", [f"sub-{letter}{number}" for number in range(3)])
        assert site.root.is_dir()
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: tiny\nmin_cases: 1\ninputs: {spacing_mm: 4.0}\nmodel: {channels: [4, 8]}\n"
        "training: {steps_per_round: 1, batch_size: 1, patch_voxels: 16}\nrounds: {num_rounds: 2, quorum: 2}\n"
        "validation: {bootstrap_samples: 100}\n"
    )
    out = small_disk / "run"
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 11_900_000)
    full = msfl("msfl-server", "simulate", study, "--cohort", cohort, "--out", out)
    assert full.returncode in (1, 2), full.stderr
    assert "Traceback" not in full.stderr
    assert full.stdout == ""
    filler.unlink()
    resumed = msfl("msfl-server", "simulate", "--resume", out, "--json")
    assert "cannot" not in resumed.stderr, full.stderr + resumed.stderr
    if resumed.returncode == 2:  # the disk was full before the run had a folder
        resumed = msfl("msfl-server", "simulate", study, "--cohort", cohort, "--out", out, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "model" / "model.safetensors").is_file()
