"""A disk that fills up: one clear line, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def msfl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.long
def test_a_full_disk_ends_a_run_with_one_line_and_it_can_go_on(
    small_disk: Callable[[int], Path], tmp_path: Path, make_site
) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for letter in "ab":
        site = make_site(f"cohort/site-{letter}", [f"sub-{letter}{number}" for number in range(3)])
        assert site.root.is_dir()
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: tiny\nmin_patients: 1\ninputs: {spacing_mm: 4.0}\nnetwork: {kind: unet, channels: [4, 8]}\n"
        "training: {steps_per_round: 1, batch_size: 1, patch_voxels: 16}\nrounds: {num_rounds: 2, quorum: 2}\n"
    )
    disk = small_disk(12 * 1024)
    out, filler = disk / "run", disk / "filler"
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
