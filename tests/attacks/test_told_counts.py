"""Attacks by subtraction: of the numbers of cases that a site tells, no two differ by a few of its patients."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml

from msfl_client.features.table import read_features_table, write_features_table
from msfl_client.harmonization.combat import large_groups_of_scanners
from msfl_client.rounds.harmonization_step import harmonization_rows, in_sums
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import RoundTask
from msfl_common.models.model_folder import read_reference
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.attacks.test_small_groups import rows
from tests.server.rounds.test_classification import STUDY as PROGRESSION
from tests.server.rounds.test_classification import play
from tests.server.rounds.test_stages import STUDY as BOTH
from tests.server.rounds.test_stages import make_site

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

FLOOR = 5


def on_one_scanner(cohort: Path) -> None:
    """Each patient once in the sums of a harmonization, and so as many cases as patients."""
    for path in cohort.glob("site-*/**/features.tsv"):
        table = read_features_table(path)
        write_features_table(path, replace(table, rows=tuple(replace(row, scanner="only") for row in table.rows)))


@pytest.mark.slow
def test_a_harmonization_tells_no_small_class(tmp_path: Path) -> None:
    make_records(tmp_path / "patients", num_sites=4, cases_per_site=40, seed=3)
    on_one_scanner(tmp_path / "patients")
    content = yaml.safe_load(PROGRESSION) | {"min_patients": FLOOR}
    content["harmonization"] = {"method": "combat", "features": ["bpf", "log_lesion_volume"], "covariates": ["age"]}
    content["classification"]["model"] = {"kind": "lda"}
    study = validate(StudyConfig, content, "study")
    final = play(study, tmp_path / "patients", tmp_path / "out").states[-1]
    num_withheld, num_told = [], 0
    for site in sites_of_cohort(tmp_path / "patients", tmp_path / "out", study):
        context = open_context(site, study, lambda *_: None)
        counts = {
            "harmonization": len(harmonization_rows(context, RoundTask(study, 1))[0]),
            "table 1": sum(final.training[site.name].cases),
            "summary": next(one.cases_train for one in final.sites if one.name == site.name),
        }
        for (one, num_one), (other, num_other) in combinations(counts.items(), 2):
            assert not 0 < abs(num_one - num_other) < FLOOR, (site.name, one, other)
        num_withheld.append(len({case.patient for case in context.training}) - counts["table 1"])
        num_told += counts["table 1"]
    assert any(0 < number < FLOOR for number in num_withheld)  # there was something to find
    assert read_reference(tmp_path / "out" / "harmonization.json").num_cases == num_told


def test_a_stage_of_lesions_tells_no_small_class(tmp_path: Path) -> None:
    assert BOTH.classification is not None
    settings = BOTH.classification.model_copy(update={"test_fraction": 0.0})
    study = BOTH.model_copy(update={"classification": settings, "min_patients": 2})
    site = make_site(tmp_path, "site", 0)
    table = site.data[0] / "participants.tsv"
    for ill in range(7):  # until the one with the outcome is among those who train
        lines = table.read_text().splitlines()
        cells = [line.split("\t") for line in lines[1:]]
        labelled = ["\t".join([cell[0], "yes" if n == ill else "no", *cell[2:]]) for n, cell in enumerate(cells)]
        table.write_text("\n".join([lines[0], *labelled]) + "\n")
        open_context.cache_clear()
        learner = open_context(site, study, lambda *_: None, "segmentation").learner
        assert isinstance(learner, SegmentationLearner)
        trained = set(learner.train_patients)
        if f"sub-{ill}" in trained:
            break
    assert (len(trained), learner.num_train_cases) == (5, 4)
    for fold in ("segmentation-1", "segmentation-2"):
        learner = open_context(site, study, lambda *_: None, fold).learner
        assert isinstance(learner, SegmentationLearner)
        assert learner.num_train_cases == len({*learner.train_patients} - {f"sub-{ill}"})


@pytest.mark.parametrize(("num_men", "left"), [(0, 42), (1, 37), (4, 37), (5, 42)])
def test_a_harmonization_tells_no_small_group_of_its_own(num_men: int, left: int) -> None:
    patients_N, learned_N = np.arange(42).astype(str), np.ones(42, dtype=bool)
    kept_N = in_sums(rows(num_men), patients_N, learned_N, FLOOR)
    assert int(kept_N.sum()) == left
    assert not kept_N[:num_men].any() or num_men == FLOOR
    small = rows(num_men).take(range(12))  # where too few would remain, no others go
    alone_N = in_sums(small, patients_N[:12], learned_N[:12], FLOOR)
    assert (alone_N == large_groups_of_scanners(small, patients_N[:12], FLOOR)).all()
