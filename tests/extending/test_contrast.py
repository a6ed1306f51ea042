"""A contrast is one entry in the table: then a study may ask for it, a site finds and checks it, and trains with it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msfl_client.cli.main import main
from msfl_client.data.bids import find_cases
from msfl_client.data.dicom_series import SeriesFacts, recognise_series
from msfl_client.preprocessing.pipeline import anchor_contrast
from msfl_client.segmentation.network_input import target_contrast
from msfl_common.config import contrasts
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.models.starting_weights import starting_weights
from msfl_server.rounds.loop import run_rounds
from tests.commands import run_main
from tests.extending import example_contrast as example
from tests.server.rounds.test_classification import Recorder, grid_of

REPOSITORY = Path(__file__).parents[2]
FILES_TOUCHED = ("common/msfl_common/config/contrasts.py",)
ASKED = ("SWI", "T1w", "ce-gadolinium_T1w")


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> set[str | None]:
    """The new contrasts in the table, as an edit of its file would add them: the files that are touched."""
    for name, facts in example.CONTRASTS.items():
        monkeypatch.setitem(contrasts.CONTRASTS, name, facts)
    return {inspect.getsourcefile(contrasts)}


@pytest.fixture
def config(make_site: Callable[..., Any]) -> SiteConfig:
    """A site of four cases with FLAIR and T1w, and others of the same heads as the new contrasts."""
    site = make_site()
    for number in range(4):
        subject = f"sub-{number}"
        site.add(subject)
        for contrast in ("swi", "ce-gadolinium_T1w"):
            site.save(site.image(subject, contrast), site.head(f"{subject}{contrast}"))
    return site.config(policy=Policy(min_patients=1))  # type: ignore[no-any-return]


def study_with(study: StudyConfig, *asked: str) -> StudyConfig:
    rounds = study.rounds.model_copy(update={"num_rounds": 1, "quorum": 1})
    return study.model_copy(update={"inputs": Inputs(contrasts=asked, spacing_mm=4.0), "rounds": rounds})


def test_a_contrast_takes_one_file(touched: set[str | None]) -> None:
    assert touched == {str(REPOSITORY / file) for file in FILES_TOUCHED}


@pytest.mark.usefixtures("touched")
def test_a_site_trains_and_checks_with_it(config: SiteConfig, tiny_study: StudyConfig, tmp_path: Path) -> None:
    study, recorder = study_with(tiny_study, *ASKED), Recorder()
    run_rounds(grid_of((config,)), study, starting_weights(study), tmp_path / "out", recorder)
    assert recorder.states[-1].history[-1].sites_ok == ("here",)
    assert recorder.states[-1].validation["here"].estimates["dsc"].num_cases == 1
    (tmp_path / "site.yaml").write_text("name: here\ndata: bids\nstate: state\npolicy: {min_patients: 1}\n")
    (tmp_path / "study.yaml").write_text("name: swi\nmin_patients: 1\ninputs: {contrasts: [SWI, ce-gadolinium_T1w]}\n")
    done = run_main(main, "check", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml", "--json")
    case = json.loads(done.stdout)["cases"][0]
    assert (done.returncode, {Path(path).name for path in case["images"].values()}) == (
        0,
        {"sub-0_swi.nii.gz", "sub-0_ce-gadolinium_T1w.nii.gz"},
    )


@pytest.mark.usefixtures("touched")
def test_entities_tell_files_of_one_suffix_apart(config: SiteConfig) -> None:
    cases, findings = find_cases(config, ASKED)
    assert {name: path.name for name, path in cases[0].images.items()} == {
        "SWI": "sub-0_swi.nii.gz",
        "T1w": "sub-0_T1w.nii.gz",
        "ce-gadolinium_T1w": "sub-0_ce-gadolinium_T1w.nii.gz",
    }
    assert findings == []
    next(config.data[0].glob("sub-0/anat/sub-0_T1w.nii.gz")).unlink()
    assert "T1w" not in find_cases(config, ASKED)[0][0].images  # the other one is asked for by its own name
    assert find_cases(config, ("T1w",))[0][0].images["T1w"].name == "sub-0_ce-gadolinium_T1w.nii.gz"


@pytest.mark.usefixtures("touched")
def test_what_it_is_good_for_is_in_the_table() -> None:
    assert anchor_contrast(Inputs(contrasts=ASKED)) == "T1w"
    assert anchor_contrast(Inputs(contrasts=("SWI", "PDw"))) == "PDw"
    assert target_contrast(Inputs(contrasts=("SWI", "FLAIR"))) == "FLAIR"
    facts = SeriesFacts("SWI_Images", pulse=contrasts.Pulse(0.02, 0.03, is_gradient_echo=True), num_slices=80)
    found = recognise_series(facts)
    assert (found.status, found.contrast) == ("wanted", "SWI")


def test_without_its_entry_the_import_passes_it_over() -> None:
    assert not contrasts.facts_of("SWI").series
    assert recognise_series(SeriesFacts("SWI_Images", num_slices=80)).why == "T2*-weighted (swi)"
