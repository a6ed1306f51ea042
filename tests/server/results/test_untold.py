"""Why figures are missing, in the words of summary, report, `start` and `status`."""

from __future__ import annotations

from msfl_server.results.summary import RoundSummary, SiteFailure
from msfl_server.results.untold import untold_lines


def round_of(number: int, *failures: tuple[str, str, str | None], ok: tuple[str, ...] = ("a", "b")) -> RoundSummary:
    failed = [SiteFailure.model_validate({"site": site, "code": code, "step": step}) for site, code, step in failures]
    return RoundSummary(round=number, train_loss=0.5, metrics={}, sites_ok=ok, sites_failed=tuple(failed), seconds=1.0)


def test_sites_that_told_no_figure_are_named_with_their_code() -> None:
    history = [round_of(1, *((site, "TOO_FEW_PATIENTS", "validation") for site in ("a", "b")))]
    (line,) = untold_lines("lesion-segmentation", history, {}, 2)
    assert line == (
        "No figure of validation patients from a, b: TOO_FEW_PATIENTS (fewer patients than the site's policy demands); "
        "`msfl-client check --study` counts them there, in each split."
    )


def test_a_segmentation_that_nobody_tested_says_whose_figures_stand_in_for_the_test() -> None:
    history = [round_of(1, *((site, "TOO_FEW_PATIENTS", "test") for site in ("a", "b")))]
    lines = untold_lines("lesion-segmentation", history, {}, 2, "validation")
    assert lines[0].startswith("No figure of test patients from a, b: TOO_FEW_PATIENTS")
    assert lines[1] == "So the figures are of validation patients, who may have chosen the model."
    assert len(untold_lines("lesion-segmentation", history, {}, 3, "test")) == 1


def test_a_test_that_nobody_told_of_leaves_figures_of_validation_patients() -> None:
    history = [round_of(1, ("a", "TOO_FEW_PATIENTS", "test"), ("b", "POLICY", "test"))]
    lines = untold_lines("classification", history, {"auroc": ("a", "b")}, 2, "validation")
    assert [line.split(":")[0] for line in lines[:2]] == [
        "No figure of test patients from a",
        "No figure of test patients from b",
    ]
    assert lines[2] == "So the figures are of validation patients, whom the threshold was chosen on."
    none = [(site, "BAD_MODEL", step) for site in ("a", "b") for step in ("validation", "test")]
    assert not any(
        "So the figures" in one for one in untold_lines("classification", [round_of(1, *none)], {}, 2, "validation")
    )
    assert lines[3].startswith("Withheld by every site: AUROC")


def test_only_sites_that_never_trained_are_named_for_it_and_only_the_last_measured_round_counts() -> None:
    history = [
        round_of(1, ("c", "TOO_FEW_PATIENTS", "training"), ("a", "OUTSIDE_HOURS", "validation")),
        round_of(2, ("b", "NO_ANSWER", "training"), ("c", "TOO_FEW_PATIENTS", "training"), ok=("a",)),
        round_of(3, ("d", "NOT_ONLINE", None), ("c", "TOO_FEW_PATIENTS", "training")).model_copy(
            update={"metrics": {"dsc": 0.5}}
        ),
    ]
    (line,) = untold_lines("lesion-segmentation", history, {}, 3)
    assert line.startswith("No update so far from c: TOO_FEW_PATIENTS")
    assert not untold_lines("lesion-segmentation", [round_of(1)], {}, 2)
    assert not untold_lines("lesion-segmentation", [], {}, 0)


def test_failures_of_earlier_versions_have_no_step() -> None:
    old = SiteFailure.model_validate_json('{"site": "a", "code": "NO_ANSWER"}')
    assert old.step is None
    assert old.model_dump() == {"site": "a", "code": "NO_ANSWER"}
