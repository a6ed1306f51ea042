"""`msfl-client harmonize` and what `check` says beforehand, as a person would type them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.client.cli.test_check import run

from msfl_client.features.table import read_features_table
from msfl_client.harmonization.combat import Rows, compute_moments, compute_residuals
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import Reference, covariate_columns, make_reference, solve_slopes

NAMES = ("bpf", "gm_volume_ml", "wm_volume_ml")
SCALES = np.array([0.1, 100.0, 100.0])
SETTINGS = Harmonization(method="combat", features=NAMES, min_cases=3)
STUDY = """\
name: pilot
harmonization:
  method: combat
  features: [bpf, gm_volume_ml, wm_volume_ml]
  min_cases: 3
validation: {fraction: 0.1}
"""


def make_reference_of_others() -> Reference:
    rng = np.random.default_rng(0)
    ages, sexes = rng.uniform(20, 60, 60), rng.integers(0, 2, 60).astype(float)
    columns = covariate_columns({"age": ages, "sex": sexes}, SETTINGS)
    scanners = tuple(f"s{number % 4}" for number in range(60))
    rows = Rows(NAMES, (rng.normal(5, 1, (60, 3)) - 0.01 * ages[:, None]) * SCALES, columns, scanners)
    moments = compute_moments(rows)
    slopes_QP = solve_slopes([moments])
    return make_reference("pilot", SETTINGS, [moments], [compute_residuals(rows, slopes_QP)], slopes_QP)


@pytest.fixture
def base(make_site, tmp_path: Path) -> Path:
    """A site of nine cases, two of them of a second scanner, a table of its own features and others' reference."""
    names = [f"sub-{number}" for number in range(9)]
    site = make_site(subjects=names)
    rng = np.random.default_rng(1)
    rows = [
        (name, str(30 + number), "FM"[number % 2], "new" if number < 7 else "old") for number, name in enumerate(names)
    ]
    lines = ["participant_id\tage\tsex\tscanner", *("\t".join(row) for row in rows)]
    (site.root / "participants.tsv").write_text("\n".join(lines) + "\n")
    table = ["\t".join(["participant_id", "centre", *NAMES])]
    table += [
        "\t".join([name, "here", *(f"{value:.6f}" for value in rng.normal(8, 0.5, 3) * SCALES)]) for name in names
    ]
    (tmp_path / "own.tsv").write_text("\n".join(table) + "\n")
    (tmp_path / "site.yaml").write_text("name: here\ndata: bids\nstate: state\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "harmonization.json").write_text(make_reference_of_others().model_dump_json())
    return tmp_path


def harmonize(base: Path, *more: object, table: str = "own.tsv"):
    return run(
        "harmonize", base / "site.yaml", "--reference", base / "harmonization.json", "--study", base / "study.yaml",
        "--features", base / table, *more,
    )  # fmt: skip


def test_check_says_beforehand_who_can_be_harmonized(base: Path) -> None:
    (base / "bids" / "participants.tsv").write_text(
        (base / "bids" / "participants.tsv").read_text().replace("sub-3\t33", "sub-3\tn/a")
    )
    done = run("check", base / "site.yaml", "--study", base / "study.yaml")
    assert done.returncode == 0, done.stderr
    assert "Harmonization (ComBat over scanners, age, sex kept):" in done.stdout
    assert "scanner old: 2 training patients, 2 visits, too few, at least 3 patients are needed" in done.stdout
    assert "left out of harmonization: 1 (sub-3): no usable age in participants.tsv" in done.stdout
    assert "the site's policy keeps its sums here; its scanners are fitted to the others' reference" in done.stdout


def test_a_late_site_fits_itself_and_sends_nothing(base: Path) -> None:
    done = harmonize(base)
    assert done.returncode == 0, done.stderr
    assert "7 of 9 cases harmonized" in done.stdout
    assert "nothing was sent" in done.stdout
    assert "scanner old has no fit: too few training patients" in done.stdout
    assert not (base / "state" / "ledger.jsonl").exists()
    table = read_features_table(base / "state" / "harmonization" / "features.tsv")
    assert table.harmonized_to == make_reference_of_others().version
    assert {row.key for row in table.rows} == {f"sub-{number}" for number in range(7)}
    assert np.mean([row.features["bpf"] for row in table.rows]) < 0.6  # the others' .5, no longer its own .8


def test_json(base: Path) -> None:
    document = json.loads(harmonize(base, "--json").stdout)
    assert document["harmonized"] == 7
    assert set(document["left_out"]) == {"sub-7", "sub-8"}
    assert [row["scanner"] for row in document["scanners"]] == ["new"]


def test_twice_is_refused(base: Path) -> None:
    harmonize(base)
    before = (base / "state" / "harmonization" / "features.tsv").read_bytes()
    done = harmonize(base, table="state/harmonization/features.tsv")
    assert done.returncode == 2
    assert "harmonized already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (base / "state" / "harmonization" / "features.tsv").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda base: (base / "harmonization.json").unlink(), "no such file; expected the reference"),
        (lambda base: (base / "harmonization.json").write_text("{}"), "not a reference of this version"),
        (
            lambda base: (base / "own.tsv").write_text("participant_id\tbpf\nsub-1\tx\n"),
            "line 2, bpf: expected a finite",
        ),
        (lambda base: (base / "own.tsv").unlink(), "own.tsv: no such file"),
        (lambda base: (base / "own.tsv").write_text("bpf\n1\n"), "participant_id and features among them"),
        (lambda base: (base / "bids" / "participants.tsv").unlink(), "no scanner can be harmonized"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(base: Path, change, text: str) -> None:
    change(base)
    done = harmonize(base)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (base / "state" / "harmonization").exists()
