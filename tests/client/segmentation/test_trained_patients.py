"""Which patients of a site trained which model: of studies of one name, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from msfl_client.segmentation.lesion_model import load_lesion_model, site_lesion_model
from msfl_client.segmentation.trained_patients import FOLDER, remember, trained_on
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import UNet

STUDY = StudyConfig(name="ms", network=UNet(channels=(2, 4), residual_units=0))
LATER = STUDY.model_copy(update={"seed": 1})


def test_rounds_of_a_run_add_up_and_another_run_begins_anew(tmp_path: Path) -> None:
    assert trained_on(tmp_path, STUDY) is None
    remember(tmp_path, STUDY, ["a"], 1)
    remember(tmp_path, STUDY, ["b"], 2)
    assert sorted(trained_on(tmp_path, STUDY) or ()) == ["a", "b"]
    remember(tmp_path, STUDY, ["c"], 1)
    assert sorted(trained_on(tmp_path, STUDY) or ()) == ["c"]


def test_a_later_study_of_the_same_name_leaves_an_earlier_ones_list(tmp_path: Path) -> None:
    """Nor does the list of the one stand for the other: who trained a model without a list is not known."""
    site = SiteConfig(name="ghent", data=(tmp_path,), state=tmp_path / "state", device="cpu")
    provenance = Provenance(rounds_completed=1, sites={"ghent": 2})
    save_model(tmp_path / "model", STUDY, starting_weights(STUDY), provenance)
    remember(site.state, LATER, ["b"], 1)
    assert [site_lesion_model(tmp_path / "model", site).has_seen(one) for one in "ab"] == ["unknown", "unknown"]
    remember(site.state, STUDY, ["a"], 1)
    remember(site.state, LATER, ["b"], 1)
    assert [site_lesion_model(tmp_path / "model", site).has_seen(one) for one in "ab"] == ["yes", "no"]


def test_a_fold_of_which_it_is_known_stands_in_where_the_model_may_have_seen_a_patient(tmp_path: Path) -> None:
    save_model(tmp_path / "model", STUDY, starting_weights(STUDY), Provenance(rounds_completed=1, sites={}))
    model = load_lesion_model(tmp_path / "model", "cpu")
    unknown, seen, unseen = (replace(model, patients=who) for who in (None, frozenset({"a"}), frozenset({"b"})))
    for main in (unknown, seen):
        assert replace(main, folds=(unknown, seen, unseen)).for_patient("a") is unseen
        assert replace(main, folds=(unknown, seen)).for_patient("a").folds  # the model itself, which says so
    assert replace(unseen, folds=(seen,)).for_patient("a").folds


def test_a_setting_without_effect_makes_no_other_model(tmp_path: Path) -> None:
    """A model's card leaves them out; read again, they have their defaults."""
    given = STUDY.model_copy(update={"harmonization": STUDY.harmonization.model_copy(update={"min_cases": 9})})
    remember(tmp_path, given, ["a"], 1)
    assert sorted(trained_on(tmp_path, STUDY) or ()) == ["a"]


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    remember(tmp_path, STUDY, ["a"], 1)
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_text("{}")
    with pytest.raises(InputError, match="not a list of who trained a model"):
        trained_on(tmp_path, STUDY)
