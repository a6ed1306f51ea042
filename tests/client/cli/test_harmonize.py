"""`msfl-client harmonize` and what `check` says beforehand, as a person would type them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.client.cli.test_check import run

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.data.bids import Case, find_cases
from msfl_client.features.cache import TABLE, digest_of_images
from msfl_client.features.own_table import cases_of_table
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table, write_features_table
from msfl_client.harmonization.combat import Rows, SiteFit, compute_moments, compute_residuals
from msfl_client.harmonization.late_site import gather
from msfl_client.harmonization.site import harmonize_site
from msfl_common.config.site import load_site
from msfl_common.config.study import Harmonization, load_study
from msfl_common.errors import InputError
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
CLASSIFICATION = """\
task: classification
classification:
  outcome: {column: course}
  features: [bpf]
  clinical: [age]
  model: {kind: logistic}
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
    for folder in ("state", "state/harmonization"):
        assert (base / folder).stat().st_mode & 0o077 == 0
    table = read_features_table(base / "state" / "harmonization" / "features.tsv")
    assert table.harmonized_to == make_reference_of_others().version
    assert {row.key for row in table.rows} == {f"sub-{number}" for number in range(7)}
    assert np.mean([row.features["bpf"] for row in table.rows]) < 0.6  # the others' .5, no longer its own .8


def test_what_lies_far_from_the_reference_is_said(base: Path) -> None:
    done = harmonize(base)
    assert "harmonized, 95% of the values are from" in done.stdout
    assert "caution" not in done.stdout
    lines = [line.split("\t") for line in (base / "own.tsv").read_text().splitlines()]
    for cells in lines[1:]:
        cells[3] = f"{float(cells[3]) + 400:.6f}"
    (base / "far.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    done = harmonize(base, table="far.tsv")
    assert "caution: scanner new, gm_volume_ml: +" in done.stdout
    assert "SD from the reference, more than 5" in done.stdout


def test_a_site_of_tables_alone_fits_to_the_patients_that_the_study_trains_on(base: Path) -> None:
    """No image, no `--table`: the split is the classification's, and the fit that of a round, to the last bit."""
    site = load_site(base / "site.yaml")
    shutil.rmtree(base / "bids" / "derivatives", ignore_errors=True)
    for folder in (base / "bids").glob("sub-*"):
        shutil.rmtree(folder)
    (base / "bids" / "features").mkdir()
    (base / "bids" / "features" / "features.tsv").write_text((base / "own.tsv").read_text())
    people = (base / "bids" / "participants.tsv").read_text().splitlines()
    labelled = [f"{people[0]}\tcourse", *(f"{line}\t{number % 2}" for number, line in enumerate(people[1:]))]
    (base / "bids" / "participants.tsv").write_text("\n".join(labelled) + "\n")
    (base / "study.yaml").write_text(f"{STUDY}{CLASSIFICATION}")
    study = load_study(base / "study.yaml")
    data = read_outcomes(site, study, lambda *_: None)
    assert 0 < len(data.training_cases) < 7
    done = run(
        "harmonize", base / "site.yaml", "--reference", base / "harmonization.json", "--study", base / "study.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert "features: features/features.tsv of the site's folders" in done.stderr
    assert data.raw is not None
    expected = harmonize_site(
        data.training_cases, data.cases, site, make_reference_of_others(), data.raw, base / "round"
    )
    fitted = SiteFit.model_validate_json((base / "state" / "harmonization" / "scanners.json").read_text())
    assert fitted == expected.fit
    checked = run("check", base / "site.yaml", "--study", base / "study.yaml")
    assert f"scanner new: {fitted.scanners[0].num_cases} training patients" in checked.stdout


def test_without_a_study_nobody_knows_who_is_held_out(base: Path) -> None:
    done = run("harmonize", base / "site.yaml", "--reference", base / "harmonization.json", "--table", base / "own.tsv")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "which patients are held out follows from study pilot: give its file with --study" in done.stderr
    (base / "study.yaml").write_text(STUDY.replace("min_cases: 3", "min_cases: 4"))
    done = harmonize(base)
    assert done.returncode == 2
    assert "made with other settings than `harmonization` of study pilot" in done.stderr


def test_every_reason_is_given_where_nothing_can_be_harmonized(base: Path) -> None:
    path = base / "bids" / "participants.tsv"
    path.write_text(path.read_text().replace("\tnew", "\told").replace("sub-3\t33", "sub-3\tn/a"))
    (base / "study.yaml").write_text(STUDY.replace("min_cases: 3", "min_cases: 20"))
    reference = make_reference_of_others()
    strict = reference.settings.model_copy(update={"min_cases": 20})
    (base / "harmonization.json").write_text(reference.model_copy(update={"settings": strict}).model_dump_json())
    done = harmonize(base)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no scanner can be harmonized: 1 (sub-3): no usable age in participants.tsv; 7 (sub-" in done.stderr
    assert (
        "scanner old: 7 training patients (7 visits) with every covariate; at least 20 patients are needed"
        in done.stderr
    )


def test_what_features_wrote_is_used_while_the_images_are_those(base: Path) -> None:
    site, study = load_site(base / "site.yaml"), load_study(base / "study.yaml")
    rows, _ = read_features_table(base / "own.tsv").rows, (base / "state" / "features").mkdir(parents=True)
    cases = find_cases(site, study.inputs.contrasts)[0]
    table = FeatureTable(rows, measured_from=digest_of_images(cases, study.inputs))
    write_features_table(site.state / TABLE, table)

    def measure(cases: Sequence[Case], _: Path | None) -> FeatureTable:
        return FeatureTable(())

    late = gather(site, study, base, None, lambda _: cases, measure)
    assert (late.table, late.source) == (table, str(site.state / TABLE))
    cases[0].images["T1w"].touch()
    late = gather(site, study, base, None, lambda _: cases, measure)
    assert late.table.rows == ()
    assert late.source.endswith("is of other images or settings")


def test_a_scanner_is_taken_from_the_clinical_tables_where_a_table_of_features_has_none(base: Path) -> None:
    site = load_site(base / "site.yaml")
    (base / "bids" / "sub-0" / "sub-0_sessions.tsv").write_text("session_id\tscanner\n02\tthird\n")
    rows = [FeatureRow(f"sub-{number}", "ses-02", "own" if number == 1 else None, 0, {}) for number in (0, 1, 8)]
    cases = cases_of_table(FeatureTable(tuple(rows)), site)
    assert [case.scanner for case in cases] == ["third", "own", "old"]
    with pytest.raises(InputError, match="dataset 1 of the table of features: the site has 1 folders"):
        cases_of_table(FeatureTable((replace(rows[0], dataset=1),)), site)


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
