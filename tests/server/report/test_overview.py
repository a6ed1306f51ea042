"""What the report says in plain words, of who was left out, and of what left each site."""

from __future__ import annotations

import io

from rich.console import Console

from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.privacy_accounting import promise_after
from msfl_server.report.overview import exclusions, limits, plain_summary, what_left
from msfl_server.report.page import render_table, write_report
from msfl_server.results.compare_sites import between_sites
from msfl_server.results.received import RECEIVED_FILE, Received, tally
from msfl_server.results.summary import SiteFailure


def test_plain_words_say_who_trained_what_and_how_good_it_is(summary, study):
    told = " ".join(plain_summary(summary, study))
    dsc = summary.metrics["dsc_native"]
    assert "5 sites (Antwerp, Ghent, Leuven, Liege, Namur) trained a model that outlines lesions" in told
    assert "from 285 training cases and in 12 rounds" in told
    seen = "which it was not trained on, but whose patients may have chosen it"
    assert f"Measured on 95 validation cases, {seen}: Dice of its outlines" in told
    assert f"is {dsc.mean:.3f}, in other such patients probably {dsc.ci95_low:.3f} to {dsc.ci95_high:.3f}" in told
    assert "was not measured in this run" in told
    assert "not finished" not in told


def test_figures_of_test_patients_are_called_so_and_flatter_nobody(tmp_path, summary, study):
    tested = summary.model_copy(update={"is_tested": True})
    told = " ".join(plain_summary(tested, study))
    assert "Measured on 95 test cases, which it was not trained on: Dice" in told
    assert "may have chosen" not in told
    assert "validation.test_fraction" in " ".join(limits(summary))
    assert "validation.test_fraction" not in " ".join(limits(tested))
    for one, whom in ((summary, "validation patients, who may have chosen it"), (tested, "test patients")):
        page = write_report(tmp_path, one, study).read_text(encoding="utf-8")
        assert f"Means are over all cases of {whom} of all sites" in page
        assert ("Rounds are measured on validation patients" in page) == (one is tested)
        printed = io.StringIO()
        render_table(one, Console(file=printed, width=200))
        assert f"mean over cases of {whom}; better" in printed.getvalue()


def test_plain_words_do_not_hide_what_is_not_known(summary, study):
    poor = summary.model_copy(update={"metrics": {}, "finished": False, "rounds_completed": 3})
    told = " ".join(plain_summary(poor, study))
    assert "3 of 12 rounds are complete" in told
    assert "no site told a figure" in told
    few = summary.model_copy(update={"few_patients": {"dsc_native": 6}})
    assert "others may give quite another figure" in " ".join(plain_summary(few, study))


def test_limits_say_what_another_hospital_may_expect(tmp_path, summary, study):
    found = between_sites("dsc_native", summary.metrics["dsc_native"])
    told = " ".join(limits(summary))
    ends = f"{found.prediction_low:.3f} and {found.prediction_high:.3f}"
    assert f"Dice similarity, own grid probably lies between {ends}" in told
    assert "raters" in told
    assert "as good for women and men, for the young and the old, below 2 T and above, for few lesions and many" in told
    page = write_report(tmp_path, summary, study).read_text(encoding="utf-8")
    assert f"probably lies between {ends}" in page
    by_sex = {f"dsc_{name}": summary.metrics["dsc"] for name in ("women", "men")}
    told = " ".join(limits(summary.model_copy(update={"metrics": {**summary.metrics, **by_sex}})))
    assert "as good for the young and the old, below 2 T and above, for few lesions" in told
    assert "groups differ in more than what sets them apart" in told
    nothing = " ".join(limits(summary.model_copy(update={"metrics": {}})))
    assert "another hospital is not known from so few sites" in nothing


def test_plain_words_say_what_noise_promises_and_that_its_cost_is_not_known(summary, study):
    noise = DifferentialPrivacy(noise_multiplier=1, sampling_rate=0.05)
    private = study.model_copy(update={"differential_privacy": noise})
    promise = promise_after(private, 3)
    assert promise.releases == 3 * study.training.steps_per_round
    told = " ".join(plain_summary(summary.model_copy(update={"differential_privacy": promise}), private))
    assert f"to epsilon {promise.epsilon:.3g} at delta 1e-05, of this study alone" in told
    assert "What it cost in Dice was not measured in this run" in told
    clipped = private.model_copy(update={"differential_privacy": noise.model_copy(update={"noise_multiplier": 0.0})})
    assert "guarantees nothing" in promise_after(clipped, 3).in_words
    assert promise_after(study, 3) is None


def test_who_was_left_out_is_counted_by_reason(summary):
    failed = SiteFailure(site="Namur", code="TOO_FEW_PATIENTS", step="validation")
    history = [record.model_copy(update={"sites_failed": (failed,)}) for record in summary.history]
    (row,) = exclusions(summary.model_copy(update={"history": tuple(history)}))
    assert (row["site"], row["step"], row["code"], row["rounds"]) == (
        "Namur",
        "validation",
        "TOO_FEW_PATIENTS",
        "1 to 12",
    )
    assert "patients" in row["meaning"]


def test_a_round_whose_figures_miss_a_site_is_not_called_answered_by_all(tmp_path, summary, study):
    failed = SiteFailure(site="Namur", code="TOO_FEW_PATIENTS", step="test")
    last = summary.history[-1].model_copy(update={"sites_failed": (failed,), "sites_ok": summary.history[0].sites_ok})
    assert len(last.sites_ok) == 5
    page = write_report(tmp_path, summary.model_copy(update={"history": (last,)}), study).read_text(encoding="utf-8")
    assert "all 5" not in page
    assert "Namur: TOO_FEW_PATIENTS, test" in " ".join(page.split())


def test_what_came_of_each_site_is_counted_by_kind(tmp_path, summary, study):
    received = Received(tmp_path)
    for site, kind, size in (("Ghent", "model_update", 4000), ("Ghent", "model_update", 600), ("Ghent", "refusal", 20)):
        received.note(site, kind, size)
    with (tmp_path / RECEIVED_FILE).open("a") as stream:
        stream.write('{"site": "Gh')  # a crash
    assert tally(tmp_path)["Ghent"]["model_update"].num_bytes == 4600
    update, refusal, everything = what_left(tmp_path)["rows"]
    assert (update["kind"], update["messages"], update["size"]) == ("model update", 2, "4.6 kB")
    assert refusal["messages"] == 1
    assert (everything["messages"], everything["bytes"]) == (3, 4620)
    page = write_report(tmp_path, summary, study).read_text(encoding="utf-8")
    assert "4.6 kB" in page


def test_a_run_that_did_not_count_says_so(tmp_path, summary, study):
    assert what_left(tmp_path) == {"rows": [], "ledgers": []}
    assert "was not counted in this run" in write_report(tmp_path, summary, study).read_text(encoding="utf-8")


def test_a_model_that_ends_by_itself_is_called_complete(tmp_path, summary, study):
    early = summary.model_copy(update={"rounds_requested": 50, "finished": True})
    page = write_report(tmp_path, early, study).read_text(encoding="utf-8")
    assert "the model was complete; at most 50 were asked for" in page
    assert "12 of 50" not in page
