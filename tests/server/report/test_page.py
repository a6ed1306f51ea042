"""The report page and the terminal table, from a realistic run and from poor ones."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from msfl_client.harmonization.combat import Rows
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import Reference, covariate_columns
from msfl_common.metrics.heterogeneity import meta_analysis
from msfl_common.metrics.intervals import Estimate, mean_estimate
from msfl_common.metrics.segmentation import NATIVE_METRICS
from msfl_server.report.charts import forest_plot
from msfl_server.report.page import Overlay, render_table, write_report
from msfl_server.research.simulation.harmonization_measures import CasesInOnePlace, measure_effect, spread_of
from msfl_server.results.compare_sites import between_sites
from msfl_server.results.few_patients import metrics_of_few
from msfl_server.results.summary import RoundSummary, SiteFailure, SiteMetric, Timing, UpdateSummary, summarise_metric

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would find: tags, ids, addresses; fails on a tag that is not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.images, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.addresses += [values[key] for key in ("src", "href", "xlink:href") if key in values]
        if tag == "img":
            self.images.append(values)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def overlay():
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 32), dtype=bool)
    mask[0:4, 10:15] = True
    return Overlay("Ghent", "Dice 0.71, lesion load 12 ml", rng.random((40, 32)), mask, np.roll(mask, 1, 1))


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_shows_the_run(tmp_path, summary, study, overlay):
    path = write_report(tmp_path, summary, study, [overlay])
    assert path == tmp_path / "report.html"
    page = page_of(path)
    dsc = summary.metrics["dsc"]
    for expected in (
        "Research use only", "belgian-lesions", "12 of 12", "55 min 02 s",
        "285 training, 95 validation cases",
        f"{dsc.mean:.3f}", f"{dsc.ci95_low:.3f} to {dsc.ci95_high:.3f}",
        "95% Hausdorff distance, study's grid, mm", "voxels of 2 mm",
        "Namur: OUT_OF_MEMORY", "Antwerp, Ghent, Leuven, Liege", "Learning over rounds", "I² =",
        "training.learning_rate", "the optimiser's, at the start", "msfl 0.1.0", "Dice 0.71, lesion load 12 ml",
    ):  # fmt: skip
        assert expected in page.text


def test_the_page_needs_nothing_from_outside(tmp_path, summary, study, overlay):
    path = write_report(tmp_path, summary, study, [overlay])
    text = path.read_text(encoding="utf-8")
    markup = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<script|<link", markup)
    for address in page_of(path).addresses:
        assert address.startswith(
            ("data:image/png;base64,", "data:image/svg+xml;base64,", "data:text/csv;charset", "#")
        )
    assert str(tmp_path) not in text
    assert str(Path.home()) + "/" not in text


def test_ids_are_unique_and_every_reference_has_its_target(tmp_path, summary, study):
    page = page_of(write_report(tmp_path, summary, study))
    assert len(set(page.ids)) == len(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_charts_take_the_colours_of_the_page(tmp_path, summary, study):
    text = write_report(tmp_path, summary, study).read_text(encoding="utf-8")
    assert "currentColor" in text
    assert "var(--accent)" in text
    assert not any(stand_in in text for stand_in in ("#010203", "#040506", "#070809"))


def test_images_are_described(tmp_path, summary, study, overlay):
    (image,) = page_of(write_report(tmp_path, summary, study, [overlay])).images
    assert image["alt"].startswith("FLAIR slice from Ghent")
    png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(tmp_path, summary, study, overlay):
    first = write_report(tmp_path / "a", summary, study, [overlay]).read_bytes()
    assert write_report(tmp_path / "b", summary, study, [overlay]).read_bytes() == first


def test_text_is_escaped(tmp_path, summary, study, overlay):
    hostile = summary.model_copy(update={"strategy": "<script>alert(1)</script>"})
    text = write_report(tmp_path, hostile, study).read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_an_overlay_without_lesions_is_drawn(tmp_path, summary, study, overlay):
    empty = np.zeros_like(overlay.reference_HW)
    blank = Overlay("Ghent", "no lesion", np.zeros(empty.shape), empty, empty)
    assert len(page_of(write_report(tmp_path, summary, study, [blank])).images) == 1


def test_a_run_without_a_round_or_a_metric(tmp_path, summary, study):
    nothing = summary.model_copy(
        update={
            "rounds_completed": 0, "metrics": {}, "history": (),
            "timing": Timing(total_s=3.0, train_s=0.0, overhead_s=0.0),
        }
    )  # fmt: skip
    text = page_of(write_report(tmp_path, nothing, study)).text
    assert "No site reported a metric" in text
    assert "No round was completed" in text


def test_a_round_where_every_site_failed(tmp_path, summary, study):
    failed = RoundSummary(
        round=1,
        train_loss=None,
        metrics={},
        sites_ok=(),
        sites_failed=tuple(SiteFailure(site=site.name, code="NO_ANSWER") for site in summary.sites),
        seconds=60.0,
    )
    text = page_of(write_report(tmp_path, summary.model_copy(update={"history": (failed,)}), study)).text
    assert "Ghent: NO_ANSWER" in text


def test_updates_that_stood_out_are_named(tmp_path, summary, study):
    odd = {"Ghent": UpdateSummary(norm=9.0, cosine=0.1, odd="long")}
    first, *rest = (record.model_copy(update={"updates": odd}) for record in summary.history)
    rounds = (first.model_copy(update={"updates": {}}), *rest)
    text = page_of(write_report(tmp_path, summary.model_copy(update={"history": rounds}), study)).text
    assert f"updates that stood out, though they count: Ghent ({len(rest)} round" in text
    assert "stood out" not in page_of(write_report(tmp_path, summary, study)).text


def test_a_metric_without_an_interval(tmp_path, summary, study):
    alone = summarise_metric("dsc", {"Ghent": Estimate(0.6, 1, float("nan"), float("nan"), float("nan"))})
    poor = summary.model_copy(update={"metrics": {"dsc": alone}})
    assert "too few patients for an interval" in page_of(write_report(tmp_path, poor, study)).text
    assert between_sites("dsc", alone) is None


def test_figures_of_few_patients_say_so_wherever_they_stand(tmp_path, summary, study):
    perfect = summarise_metric("dsc", {"Ghent": mean_estimate([0.5, 0.6, 0.7], list("abc"), (0.0, 1.0))})
    metrics = {"dsc": perfect}
    poor = summary.model_copy(
        update={"metrics": metrics, "few_patients": metrics_of_few("lesion-segmentation", metrics)}
    )
    line = (
        "From few patients, others may give quite other figures: Dice similarity, study's grid: 3 patients, "
        "at 1 of 5 sites."
    )
    text = page_of(write_report(tmp_path, poor, study)).text
    assert line in text
    assert "too few patients for an interval; from 3 patients" in text
    console = Console(record=True, width=200)
    render_table(poor, console)
    shown = console.export_text()
    assert line in shown
    assert "too few patients for an interval" in shown


def test_a_page_says_how_its_intervals_are_computed(tmp_path, summary, study):
    text = " ".join(page_of(write_report(tmp_path, summary, study)).text.split())
    assert "Student's t over patients within each site" in text
    assert "interval of Hartung and Knapp" in text


def test_many_sites_share_one_colour(tmp_path, summary, study):
    sites = tuple(summary.sites[0].model_copy(update={"name": f"site-{index}"}) for index in range(20))
    text = page_of(write_report(tmp_path, summary.model_copy(update={"sites": sites}), study)).text
    assert "Each site" in text


def test_one_site_is_not_compared_with_itself(tmp_path, summary, study):
    alone = summarise_metric("dsc", {"Ghent": Estimate(0.6, 10, 0.05, 0.5, 0.7)})
    poor = summary.model_copy(update={"metrics": {"dsc": alone}})
    text = page_of(write_report(tmp_path, poor, study)).text
    assert "No comparison of sites in Dice similarity, study's grid: 1 site told it, and it takes 3." in text
    assert "Random effects" not in text


def test_two_sites_have_no_mean_over_sites_such_as_these(tmp_path, summary, study):
    told = {name: mean_estimate(np.linspace(0.5, 0.9, 12), list("abcdefghijkl"), (0.0, 1.0)) for name in ("a", "b")}
    two = summary.model_copy(update={"metrics": {"dsc": summarise_metric("dsc", told)}})
    page = page_of(write_report(tmp_path, two, study))
    assert "I² = 0%, Q = 0.0 with 1 degrees of freedom" in page.text
    assert "No mean over sites such as these: 2 sites told it, and it takes 3" in page.text
    assert "A further site" not in page.text
    assert "Without a" not in page.text


def test_the_page_has_means_over_sites_and_each_left_out(tmp_path, summary, study):
    page = page_of(write_report(tmp_path, summary, study))
    found = between_sites("dsc", summary.metrics["dsc"])
    assert found.num_sites == 5
    assert found.prediction_low < found.random.ci95_low < found.random.ci95_high < found.prediction_high
    for site, without in found.without.items():
        row = f"Without {site} .*{without.random.mean:.3f} \\({without.random.ci95_low:.3f} to "
        assert re.search(row, page.text)
    assert f"τ² = {found.random.tau2:.4f} (REML {found.likelihood.tau2:.4f})" in page.text
    svg = forest_plot("dsc", summary.metrics["dsc"], analysis=found)
    for label in ("Fixed effect", "Random effects", "A further site"):
        assert f"<!-- {label} -->" in svg


def test_between_sites_recovers_standard_errors_from_interval_widths():
    estimates = {"a": Estimate(0.5, 10, 0.1, 0.304, 0.696), "b": Estimate(0.8, 10, 0.1, 0.604, 0.996)}
    metric = summarise_metric("dsc", estimates)
    assert between_sites("dsc", metric).q == pytest.approx(meta_analysis(estimates).q, rel=1e-3)
    kept = {site: at.model_copy(update={"standard_error": None}) for site, at in metric.per_site.items()}
    earlier = metric.model_copy(update={"per_site": kept})
    assert between_sites("dsc", earlier).q == pytest.approx(meta_analysis(estimates).q, rel=1e-3)


def test_a_site_without_a_metric_says_so(tmp_path, summary, study):
    dsc = summary.metrics["dsc"]
    few = {"Ghent": SiteMetric(mean=0.5, ci95_low=0.4, ci95_high=0.6, num_cases=9)}
    partial = summary.model_copy(update={"metrics": {"dsc": dsc.model_copy(update={"per_site": few})}})
    assert "n/a" in page_of(write_report(tmp_path, partial, study)).text


def test_withheld_metrics_are_named_under_the_results(tmp_path, summary, study):
    every = tuple(site.name for site in summary.sites)
    line = (
        f"Withheld by every site: Lesion F1, study's grid; by {every[0]}: Voxel precision (PPV), own grid (defined in "
        "fewer patients than min_patients, of a class of lesions where few have another, or on own grids in others"
    )
    summary = summary.model_copy(update={"withheld": {"lesion_f1": every, "ppv_native": every[:1]}})
    assert line in page_of(write_report(tmp_path, summary, study)).text


def test_without_a_metric_there_is_no_table(summary):
    console = Console(record=True, width=120)
    render_table(summary.model_copy(update={"metrics": {}, "rounds_completed": 0}), console)
    assert "0 of 12 rounds, not finished, 5 sites. No metric yet." in console.export_text()


def test_the_table_holds_the_headline_figures(summary):
    console = Console(file=io.StringIO(), width=100)
    render_table(summary, console)
    text = console.file.getvalue()
    dsc = summary.metrics["dsc"]
    assert "12 of 12 rounds, 5 sites" in text
    line = next(line for line in text.splitlines() if "Dice similarity" in line and "study's grid" in line)
    assert [f"{dsc.mean:.3f}", f"{dsc.ci95_low:.3f} to {dsc.ci95_high:.3f}", "95"] == [
        cell.strip() for cell in line.split("│")[2:5]
    ]
    assert "False lesions (lesion FPR), study's grid ↓" in text
    assert "False lesions (lesion FPR), own grid ↓" in text
    assert "own grid: that of the manual mask" in text
    before_the_last = {name: metric for name, metric in summary.metrics.items() if name not in NATIVE_METRICS}
    render_table(summary.model_copy(update={"metrics": before_the_last}), console)
    assert "come with the last round" in " ".join(console.file.getvalue().split())


@pytest.fixture
def reference():
    settings = Harmonization(method="combat", features=("bpf", "gm_volume_ml"), covariates=("age",))
    return Reference(
        study="pilot",
        settings=settings,
        columns=("age",),
        slopes=((0.0, 0.1),),
        grand_mean=(1.0, 2.0),
        pooled_variance=(1.0, 1.0),
        num_cases=90,
        num_scanners=4,
        num_sites=3,
    )


def test_a_harmonization_among_real_sites_is_told_by_its_facts_alone(tmp_path, summary, study, reference):
    page = page_of(write_report(tmp_path, summary, study, reference=reference))
    assert "ComBat over 4 scanners at 3 sites, from sums of 90 training cases: 2 features, age kept." in page.text
    assert reference.version in page.text
    assert "Telling the scanner" not in page.text


@pytest.mark.slow
def test_a_simulated_harmonization_shows_what_it_changed(tmp_path, summary, study, reference):
    rng = np.random.default_rng(0)
    clean, scanner, ages = rng.normal(size=(60, 2)), np.repeat([0, 1, 2], 20), rng.uniform(20, 60, 60)
    columns = covariate_columns({"age": ages}, reference.settings)
    raw = clean + 5.0 * scanner[:, None]
    cases = CasesInOnePlace(
        raw=Rows(reference.settings.features, raw, columns, tuple(f"s{number}" for number in scanner)),
        harmonized_NP=clean,
        settings=reference.settings,
        patients=tuple(map(str, range(60))),
        ages=ages,
        outcomes=np.repeat([0.0, 1.0], 30),
        outcome_name="progression_1y",
    )
    effect = replace(measure_effect(cases, 0), spread=spread_of(cases, reference))
    page = page_of(write_report(tmp_path, summary, study, reference=reference, effect=effect))
    assert "logistic regression 1.00" in page.text
    assert "0.33" in page.text  # chance
    assert "Age" in page.text
    assert "progression_1y" in page.text
    assert "95% of the values lie within" in page.text
    assert len(page.ids) == len(set(page.ids))
