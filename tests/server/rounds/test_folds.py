"""Folds of a federated study: who is held out changes nothing in the model, and a site left out only tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.clientapp import ClientApp
from tests.server.rounds.test_classification import STUDY, Recorder, grid_of, play

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.egress.ledger import read
from msfl_client.features.table import read_features_table
from msfl_client.rounds.harmonization_step import harmonization_rows, take_reference
from msfl_client.rounds.site_context import open_context
from msfl_common.config.base import validate
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import InputError, RefusedError, RunError
from msfl_common.messages.records import RoundTask
from msfl_common.models.model_folder import read_reference
from msfl_common.models.starting_weights import starting_weights
from msfl_server.report.classification import classification_section
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import RunSetup, claim_folder, sites_of_cohort
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.research.simulation.harmonization_cases import cases_of_run
from msfl_server.rounds.exchange import Presence, gather
from msfl_server.rounds.loop import run_rounds
from msfl_server.run.summarise import summarise_run

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

SITES = ("site-a", "site-b", "site-c", "site-d")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sites of 40 patients, as tables."""
    folder = tmp_path_factory.mktemp("folds") / "patients"
    make_records(folder, num_sites=4, cases_per_site=40)
    return folder


def study_of(fold: dict[str, Any], **changes: Any) -> StudyConfig:
    content = yaml.safe_load(STUDY) | changes
    content["classification"] |= {"fold": fold, "model": {"kind": "lda"}}
    return validate(StudyConfig, content, "study")


def weights_of(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def changed(patients: Path, to: Path, site: str, edit: Callable[[list[str], list[str]], list[str]]) -> Path:
    """A copy of the cohort in which `edit` has changed the lines of a site's participants.tsv, given the header."""
    shutil.copytree(patients, to)
    table = to / site / "participants.tsv"
    header, *lines = table.read_text().splitlines()
    names = header.split("\t")
    rows = ["\t".join(edit(names, line.split("\t"))) for line in lines]
    table.write_text("\n".join([header, *rows]) + "\n")
    return to


def held_out(patients: Path, out: Path, study: StudyConfig, site: str) -> set[str]:
    config = next(one for one in sites_of_cohort(patients, out, study) if one.name == site)
    return {one.subject for one in read_outcomes(config, study, lambda *_: None).splits.test}


@pytest.mark.slow
def test_no_value_of_a_test_patient_changes_the_weights(patients: Path, tmp_path: Path) -> None:
    study = study_of({"number": 2, "of": 4})
    before = play(study, patients, tmp_path / "before").states[-1]
    tested = {site: held_out(patients, tmp_path, study, site) for site in SITES}
    assert {site: before.test[site].num_cases for site in SITES} == {site: len(tested[site]) for site in SITES}

    def older(whom: set[str]) -> Callable[[list[str], list[str]], list[str]]:
        def edit(names: list[str], row: list[str]) -> list[str]:
            if row[0] in whom:
                row[names.index("age")] = "79.5"
            return row

        return edit

    copy = changed(patients, tmp_path / "copy", "site-b", older(tested["site-b"]))
    after = play(study, copy, tmp_path / "after").states[-1]
    assert weights_of(tmp_path / "after") == weights_of(tmp_path / "before")
    assert after.test["site-b"] != before.test["site-b"]
    assert after.test["site-a"].estimates == before.test["site-a"].estimates
    everybody = {path.name for path in (patients / "site-b").glob("sub-*")}
    control = changed(patients, tmp_path / "control", "site-b", older(everybody - tested["site-b"]))
    play(study, control, tmp_path / "other")
    assert weights_of(tmp_path / "other") != weights_of(tmp_path / "before")


def test_a_site_left_out_is_measured_on_everybody_and_trains_nothing(patients: Path, tmp_path: Path) -> None:
    study = study_of({"site": "site-b"})
    states = play(study, patients, tmp_path / "whole").states
    final = states[-1]
    assert list(final.test) == ["site-b"]
    told = study_of({"number": 1, "of": 2}), study_of({"number": 2, "of": 2})
    everybody = set().union(*(held_out(patients, tmp_path, one, "site-b") for one in told))
    assert final.test["site-b"].num_cases == len(everybody) > 25
    for record in final.history:
        assert (record.sites_ok, record.sites_failed) == (("site-a", "site-c", "site-d"), ())
    assert set(final.validation) == {"site-a", "site-c", "site-d"}
    site = sites_of_cohort(patients, tmp_path / "whole", study)[1]
    kinds = [line.kind for line in read(site.state / "ledger.jsonl")]
    assert kinds == ["node_facts", "validation_metrics"]

    copy = tmp_path / "copy"
    shutil.copytree(patients, copy)
    shutil.rmtree(copy / "site-b")
    make_records(tmp_path / "strangers", num_sites=2, cases_per_site=40, seed=9)
    shutil.copytree(tmp_path / "strangers" / "site-b", copy / "site-b")

    assert play(study, copy, tmp_path / "others").states[-1].test != final.test
    assert weights_of(tmp_path / "others") == weights_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_site_left_out_brings_itself_to_a_reference_of_the_others(patients: Path, tmp_path: Path) -> None:
    harmonization = {"method": "combat", "features": ["bpf", "log_lesion_volume"]}
    study = study_of({"site": "site-d"}, harmonization=harmonization)
    out = tmp_path / "run"
    final = play(study, patients, out).states[-1]
    assert (list(final.test), final.history[-1].sites_failed) == (["site-d"], ())
    reference = read_reference(out / "harmonization.json")
    assert reference.num_sites == 3
    sites = sites_of_cohort(patients, out, study)
    taken = read_features_table(sites[3].state / "harmonization" / "features.tsv")
    assert taken.harmonized_to == reference.version
    assert {row.participant_id for row in taken.rows} >= held_out(patients, tmp_path, study, "site-d")
    kinds = [[line.kind for line in read(site.state / "ledger.jsonl")] for site in sites]
    assert ["harmonization_sums" in site for site in kinds] == [True, True, True, False]
    context = open_context(sites[3], study, lambda *_: None)
    with pytest.raises(RefusedError, match="leaves this site out"):
        harmonization_rows(context, RoundTask(study, 1))
    setup = RunSetup(study=study, sites=sites)
    cases = cases_of_run(setup, reference)
    assert cases is not None
    assert {name.split()[0] for name in cases.raw.scanners} == set(SITES)
    known = cases.outcomes[np.isfinite(cases.outcomes)]
    assert (cases.outcome_name, set(known)) == ("activity", {0.0, 1.0})  # the study's, not another
    assert len(known) <= len(set(cases.patients))  # at each patient's index visit


@pytest.mark.slow
def test_a_reference_that_cannot_be_taken_leaves_no_features_of_an_earlier_one(patients: Path, tmp_path: Path) -> None:
    harmonization = {"method": "combat", "features": ["bpf", "log_lesion_volume"]}
    study = study_of({"site": "site-d"}, harmonization=harmonization)
    play(study, patients, tmp_path)
    sites, reference = sites_of_cohort(patients, tmp_path, study), read_reference(tmp_path / "harmonization.json")
    context = open_context(sites[0], study, lambda *_: None)
    alone = replace(context, training=context.training[:3])
    with pytest.raises(RefusedError, match="no scanner can be harmonized"):
        take_reference(alone, RoundTask(study, 1), reference)
    assert not (sites[0].state / "harmonization" / "features.tsv").exists()
    assert cases_of_run(RunSetup(study=study, sites=sites[:1]), reference) is None


def test_a_site_left_out_must_be_there(patients: Path, tmp_path: Path) -> None:
    study = study_of({"site": "site-z"})
    setup = RunSetup(study=study, sites=sites_of_cohort(patients, tmp_path / "run", study))
    with pytest.raises(InputError, match="there is no site site-z; there are site-a, site-b"):
        claim_folder(tmp_path / "run", setup)
    assert not (tmp_path / "run").exists()


def test_a_report_says_who_was_left_out(patients: Path, tmp_path: Path) -> None:
    study = study_of({"site": "site-c"})
    final = play(study, patients, tmp_path).states[-1]
    section = classification_section(summarise_run(study, final), study)
    assert section is not None
    assert "Figures are of site-c, which was left out whole." in section["facts"]
    assert section["silent"] == []
    silent = final.model_copy(update={"test": {}})
    section = classification_section(summarise_run(study, silent), study)
    assert section is not None
    assert "left out whole" not in section["facts"]
    assert section["silent"] == ["site-c"]


def test_the_quorum_counts_those_who_train(patients: Path, tmp_path: Path) -> None:
    study = study_of({"site": "site-a"}, rounds={"num_rounds": 3, "quorum": 4})
    with pytest.raises(RunError, match="3 sites gave a usable update"):
        run_rounds(
            grid_of(sites_of_cohort(patients, tmp_path, study)), study, starting_weights(study), tmp_path, Recorder()
        )


def test_a_round_does_not_begin_for_a_quorum_with_a_site_that_will_not_train() -> None:
    class Online(InProcessGrid):
        def presence(self) -> dict[int, Presence]:
            return {1: Presence("site-a", ""), 2: Presence("site-c", "")}

    grid, rounds = Online(ClientApp(), 2), Rounds(quorum=2, deadline_s=0.2, patience_s=0.1)
    waited: list[list[str]] = []
    gather(grid, (), rounds, lambda sites, _: waited.append(sites))
    assert waited == []
    gather(grid, (), rounds, lambda sites, _: waited.append(sites), without={"site-c"})
    assert waited == [["1 more site"]]
