"""What a site says beforehand that it will not tell, against what its app then refuses and withholds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.client.secure_aggregation.members import masked
from tests.clinical_site import Tables
from tests.conftest import SHAPE, BidsSite

from msfl_client.cli.forecast_view import play_under_bar, raise_if_hopeless
from msfl_client.rounds.forecast import Forecast, forecast
from msfl_client.rounds.forecast_words import forecast_lines
from msfl_client.rounds.site_context import open_context, train_site, validate_site
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.classification import class_metrics
from msfl_common.models.starting_weights import starting_weights


def tell_nobody(*_: object) -> None: ...


def of_classes(tmp_path: Path, *counts: int, site: str = "here", **policy: Any) -> SiteConfig:
    """A site of so many patients of each class, by their EDSS in rising order."""
    tables = Tables(tmp_path / site)
    labels = [f"c{label}" for label, count in enumerate(counts) for _ in range(count)]
    lines = [(f"sub-{n:03d}", round(0.5 * (n * 7 % 19), 1), 20 + n, label) for n, label in enumerate(labels)]
    tables.participants(("participant_id", "edss", "age", "course"), *lines)
    settings = {"tasks": ("classification",), "refuse_models": ()} | policy
    return SiteConfig(name=site, data=(tables.root,), state=tmp_path / f"state-{site}", policy=Policy(**settings))


def classes(num_classes: int = 2, **changes: Any) -> StudyConfig:
    outcome = {"column": "course", "classes": [f"c{label}" for label in range(num_classes)]}
    settings = {"outcome": outcome, "clinical": ["age", "edss"], "model": {"kind": "lda"}}
    content = {"name": "play", "task": "classification", "classification": settings | changes.pop("classification", {})}
    return StudyConfig.model_validate(content | changes)


def refusals(made: Forecast) -> list[tuple[str, Code, bool]]:
    return [(one.step, one.code, one.is_whole) for one in made.withheld]


@pytest.mark.parametrize("rare", range(7))
def test_who_trains_does_not_depend_on_whether_a_small_class_has_none_or_four(tmp_path: Path, rare: int) -> None:
    """Half of `rare` times two is trained on: a class of 0 to 4 counts as none, of 5 and more it is in the sums."""
    site, study = of_classes(tmp_path, 60, 2 * rare), classes()
    made = forecast(site, study, tell_nobody)
    assert made.refused("training", 1) is None
    context = open_context(site, study, tell_nobody)
    update = train_site(context, RoundTask(study, 1), starting_weights(study))
    in_sums = [int(count) for count in update.weights["counts"]]
    assert in_sums[0] >= 5
    assert in_sums[1] == 0 or in_sums[1] >= 5


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((4, 4), [("taking part", Code.NO_CASES, True)]),
        ((30, 12), [("validation", Code.TOO_FEW_PATIENTS, False), ("test", Code.TOO_FEW_PATIENTS, False)]),
        ((40, 0), [("validation", Code.TOO_FEW_PATIENTS, True), ("test", Code.TOO_FEW_PATIENTS, True)]),
        ((40, 40), []),
    ],
)
def test_each_split_is_held_to_the_floor_by_itself(
    tmp_path: Path, counts: tuple[int, int], expected: list[tuple[str, Code, bool]]
) -> None:
    made = forecast(of_classes(tmp_path, *counts), classes(), tell_nobody)
    assert refusals(made) == expected
    of_some = [one.metrics for one in made.withheld if one.metrics]
    assert all(set(metrics) == set(class_metrics()) for metrics in of_some)


def test_what_is_foreseen_of_figures_is_what_the_site_tells(tmp_path: Path) -> None:
    site, study = of_classes(tmp_path, 40, 16), classes()
    made = forecast(site, study, tell_nobody)
    (validation,) = [one for one in made.withheld if one.step == "validation"]
    assert validation.why == "14 patients, 10 of class c0, 4 of class c1"
    (depends,) = [one for one in made.depends if one.step == "validation"]
    context = open_context(site, study, tell_nobody)
    told = validate_site(context, RoundTask(study, 1), starting_weights(study)).estimates
    assert not set(told) & set(validation.metrics)
    assert set(told) >= {"brier", "ece"} - set(depends.metrics)


def test_a_metric_of_masks_that_some_answers_leave_undefined_depends_on_the_model(tmp_path: Path) -> None:
    """Enough patients with lesions, and enough without: but a model may miss the ones and find some in the others."""
    site = BidsSite(tmp_path / "images")
    site.root.mkdir()
    for number in range(12):
        site.add(subject := f"sub-{number}")
        if number % 2:
            site.save(site.mask(subject), np.zeros(SHAPE, np.uint8))
    settings = SiteConfig(
        name="here", data=(site.root,), state=tmp_path / "state", device="cpu", policy=Policy(min_patients=2)
    )
    inputs = {"contrasts": ["FLAIR"], "spacing_mm": 4.0}
    study = StudyConfig.model_validate(
        {"name": "masks", "min_patients": 2, "inputs": inputs, "validation": {"fraction": 0.5}}
    )
    made = forecast(settings, study, tell_nobody)
    undefined = {"ppv", "lesion_fpr", "hd95_mm"}
    assert [one.metrics for one in made.withheld] == [("lesion_tpr_small", "lesion_tpr_medium")]
    assert set(made.depends[0].metrics) == undefined | {f"{name}_native" for name in undefined}


def test_folds_and_a_site_that_is_left_out_are_played_as_they_are(tmp_path: Path) -> None:
    site = of_classes(tmp_path, 40, 40)
    held = forecast(site, classes(classification={"fold": {"number": 1, "of": 10}}), tell_nobody)
    assert refusals(held) == [("test", Code.TOO_FEW_PATIENTS, False)]  # 4 of each class in a tenth
    left_out = classes(classification={"fold": {"site": "here"}})
    assert not forecast(site, left_out, tell_nobody).withheld
    few = forecast(
        of_classes(tmp_path, 4, 0, site="few"), classes(classification={"fold": {"site": "few"}}), tell_nobody
    )
    assert refusals(few) == [("test", Code.TOO_FEW_PATIENTS, True)]
    assert few.hopeless(classes(classification={"fold": {"site": "few"}})) is few.withheld[0]


@pytest.mark.parametrize("scanners", [1, 4])
def test_a_scanner_with_too_few_patients_takes_them_out_of_the_figures(tmp_path: Path, scanners: int) -> None:
    """40 patients of one scanner are harmonized; of four scanners with five training patients each, none is."""
    site = of_classes(
        tmp_path, 20, 20, allow=("model_update", "validation_metrics", "node_facts", "harmonization_sums")
    )
    tables = Tables(site.data[0])
    rows = [
        (f"sub-{n:03d}", round(0.5 * (n * 7 % 19), 1), 20 + n, f"c{n // 20}", "FM"[n % 2], f"s{n % scanners}")
        for n in range(40)
    ]
    tables.participants(("participant_id", "edss", "age", "course", "sex", "scanner"), *rows)
    features = [(line[0], "n/a", line[5], 0.8 + int(line[0][4:]) / 1000) for line in rows]
    tables.write("features/features.tsv", ("participant_id", "session_id", "scanner", "bpf"), *features)
    study = classes(
        classification={"features": ["bpf"]}, harmonization={"method": "combat", "features": ["bpf"]}, min_patients=5
    )
    made = forecast(site, study, tell_nobody)
    steps = [one.step for one in made.withheld if one.is_whole]
    assert steps == ([] if scanners == 1 else ["harmonization", "training", "validation", "test"])
    assert not (site.state / "harmonization").exists()  # playing leaves no reference behind


def test_the_policy_is_part_of_it(tmp_path: Path) -> None:
    study = classes()
    site = of_classes(tmp_path, 40, 40, tasks=("lesion-segmentation",))
    assert refusals(forecast(site, study, tell_nobody)) == [("taking part", Code.POLICY, True)]
    assert not any(line.startswith("Each figure") for line in forecast_lines([forecast(site, study, tell_nobody)]))
    silent = of_classes(tmp_path, 40, 40, site="silent", allow=("model_update", "node_facts"))
    assert refusals(forecast(silent, study, tell_nobody)) == [
        ("validation", Code.POLICY, True),
        ("test", Code.POLICY, True),
    ]


@pytest.mark.slow
def test_rounds_of_patches_of_too_few_patients_are_named(
    make_site: Callable[..., Any], tiny_study: StudyConfig
) -> None:
    """Two patches a round of five patients: where one pass ends and the next begins, both may be of one patient."""
    site = make_site(subjects=[f"sub-{number}" for number in range(7)]).config(policy=Policy(min_patients=2))
    training = Training(steps_per_round=1, batch_size=2, patch_voxels=16)
    study = tiny_study.model_copy(update={"training": training, "rounds": Rounds(num_rounds=60)})
    (refused,) = [one for one in forecast(site, study, tell_nobody).withheld if one.step == "training"]
    assert 0 < len(refused.rounds) < 20
    context, weights = open_context(site, study, tell_nobody), starting_weights(study)
    for number in refused.rounds:
        with pytest.raises(RefusedError, match="TOO_FEW_PATIENTS"):
            train_site(context, RoundTask(study, number), weights)
    for number in sorted(set(range(1, 61)) - set(refused.rounds))[-3:]:
        train_site(context, RoundTask(study, number), weights)


def test_lines_name_sites_with_their_counts_once_for_each_step(tmp_path: Path) -> None:
    made = [forecast(of_classes(tmp_path, 40, 12, site=name), classes(), tell_nobody) for name in ("a", "b")]
    lines = list(forecast_lines(made))
    whose = [f"{name} (13 patients, 10 of class c0, 3 of class c1)" for name in ("a", "b")]
    assert lines[1].endswith(f"and 6 more of test patients (TOO_FEW_PATIENTS): {'; '.join(whose)}")
    assert lines[2].startswith("Each figure, and each class in it, needs at least 5 patients")


@pytest.mark.parametrize(
    ("unlabelled", "said"),
    [(1, "1 patient or visit left out: no label (1)"), (2, "2 patients or visits left out: no label (2)")],
)
def test_check_says_who_is_left_out_without_pointing_to_itself(tmp_path: Path, unlabelled: int, said: str) -> None:
    site = of_classes(tmp_path, 40, 40)
    with (tmp_path / "here" / "participants.tsv").open("a") as table:
        table.writelines(f"sub-{900 + n}\t2\t40\tn/a\n" for n in range(unlabelled))
    open_context.cache_clear()
    _, notes = play_under_bar(site, classes())
    assert said in notes
    assert not any("`msfl-client check`" in note for note in notes)


def test_what_masks_need_is_foreseen(tmp_path: Path) -> None:
    study = masked(classes())
    site = of_classes(tmp_path, 40, 40)
    assert refusals(forecast(site, study, tell_nobody)) == []
    allow = tuple(kind for kind in site.policy.allow if kind != "masked_sums")
    few = of_classes(tmp_path, 40, 40, allow=allow)
    made = forecast(few, study, tell_nobody)
    assert refusals(made) == [("validation", Code.POLICY, True), ("test", Code.POLICY, True)]
    assert "masked_sums may not leave this site" in made.withheld[0].why
    allow = tuple(kind for kind in site.policy.allow if kind != "masked_update")
    with pytest.raises(InputError, match=r"nothing would come of .*masked_update.*`policy\.allow`"):
        raise_if_hopeless("site.yaml", study, forecast(of_classes(tmp_path, 40, 40, allow=allow), study, tell_nobody))
    strict = forecast(of_classes(tmp_path, 40, 40, require_masks=True), classes(), tell_nobody)
    assert [(one.step, one.code) for one in strict.withheld] == [("taking part", Code.POLICY)]
