"""What a site gains by taking part: trained, resumed, measured and shown at the site, and there alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.client.segmentation.test_loop import STUDY
from tests.commands import run_main
from tests.server.rounds.test_loop import Killed, Recorder, equal, grid_of, sites, start

from msfl_client.cli.gain import gain_lines
from msfl_client.cli.main import main
from msfl_client.personal import arms
from msfl_client.personal.arms import Own, own_of_model, own_of_study, tuned
from msfl_client.personal.gain import compare, measure_gain
from msfl_client.personal.page import write_page
from msfl_client.personal.record import FIGURES, LOCAL, PERSONAL, SHARED, TUNED, read_gain
from msfl_client.rounds import own_model
from msfl_client.rounds.own_model import alone
from msfl_client.rounds.site_context import SiteContext
from msfl_client.training.site_strategy import site_strategy
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.metrics import paired
from msfl_common.models.model_card import Choice
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.finetune import FineTune
from msfl_server.rounds.loop import run_rounds

__all__ = ["sites"]


def with_strategy(study: StudyConfig, kind: str) -> StudyConfig:
    settings = {**study.model_dump(), "strategy": {"kind": kind}}
    settings["training"]["steps_per_round"] = 2
    settings["rounds"]["num_rounds"] = 2
    return parse_study(StudyConfig.model_validate(settings).model_dump_json())


def nothing(*_: object) -> None:
    """No progress."""


@pytest.mark.slow
def test_models_are_made_measured_and_kept_at_the_site(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, site = with_strategy(tiny_study, "ditto"), sites[2]
    with pytest.raises(InputError, match="run this again when the study is over"):
        own_of_study(site, study)
    run_rounds(grid_of(sites), study, start(study), tmp_path / "out", Recorder())
    ledger = (site.state / "ledger.jsonl").read_bytes()
    own = own_of_study(site, study)
    assert own.personal is not None
    assert equal(own.shared, load_model(tmp_path / "out" / "model")[1])
    assert not equal(own.shared, own.personal)
    of_model = own_of_model(site, tmp_path / "out" / "model")  # as its coordinator hands it out
    assert equal(of_model.personal or {}, own.personal)

    def killed(_: str, what: str, done: int, *__: object) -> None:
        if what == f"training {LOCAL}" and done == 3:
            raise Killed

    with pytest.raises(Killed):
        measure_gain(own, killed)
    (work,) = (own.folder / ".work").glob(f"{LOCAL}-*")
    assert [path.name for path in work.iterdir()] == ["000001.safetensors"]
    trained: list[int] = []
    once = own_model._train_round
    monkeypatch.setattr(own_model, "_train_round", lambda *given: (trained.append(given[3]), once(*given))[1])
    found = measure_gain(own, nothing)
    assert trained == [2, 1]  # what was left of local-only, and fine-tuning
    assert [*found.models] == [SHARED, PERSONAL, TUNED, LOCAL]
    assert (site.state / "ledger.jsonl").read_bytes() == ledger
    assert all(path.stat().st_mode & 0o077 == 0 for path in (own.folder, own.folder.parent, own.folder / FIGURES))
    assert {path.name for path in own.folder.iterdir() if path.is_dir()} == {".work", PERSONAL, TUNED, LOCAL}
    card, weights = load_model(own.folder / PERSONAL)
    assert (card.own_of, card.provenance.is_of(site.name), card.study.strategy) == (site.name, True, None)
    assert equal(weights, own.personal)
    fresh = site.model_copy(update={"state": copied(site, tmp_path)})
    again = measure_gain(Own(fresh, study, own.shared, own.personal, own.num_rounds), nothing)
    assert again.models == found.models  # never killed, from the same weights
    assert read_gain(own.folder / FIGURES) == found
    assert all(line in "\n".join(gain_lines(site)) for line in found.sentences)
    page = write_page(own.folder, found).read_text()
    assert "http" not in page
    assert "sub-" not in page


def copied(site: SiteConfig, folder: Path) -> Path:
    """A state folder with the prepared images and nothing else."""
    (state := folder / "fresh").mkdir(mode=0o700)
    shutil.copytree(site.state / "cache", state / "cache")
    return state


def test_figures_are_means_and_differences_of_the_same_cases() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{number // 2}" for number in range(16)]
    rows = {name: [{"dsc": float(value)} for value in rng.normal(0.5, 0.1, 16)] for name in (SHARED, LOCAL)}
    rows[SHARED][3]["dsc"] = float("nan")
    found = compare(rows, patients, {"dsc": "DSC"}, 0)
    used = [number for number in range(16) if number != 3]
    values = {name: np.array([of[number]["dsc"] for number in used]) for name, of in rows.items()}
    figure = found[SHARED]["dsc"]
    assert figure.value.mean == pytest.approx(values[SHARED].mean())
    assert figure.against_local is not None
    assert figure.against_local.mean == pytest.approx((values[SHARED] - values[LOCAL]).mean())
    assert found[LOCAL]["dsc"].against_local is None
    drawn = []
    for _ in range(4000):  # by hand: patients with replacement, all cases of each
        names = rng.choice(sorted(set(patients)), 8)
        cases = [place for name in names for place, number in enumerate(used) if patients[number] == name]
        drawn.append((values[SHARED] - values[LOCAL])[cases].mean())
    low, high = np.quantile(drawn, (0.0057, 0.9943))  # expanded for 8 patients: t 2.365, sqrt(8 / 7)
    assert figure.against_local.low == pytest.approx(low, abs=0.02)
    assert figure.against_local.high == pytest.approx(high, abs=0.02)


def test_intervals_hold_the_mean_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "NUM_RESAMPLES", 600)
    rng = np.random.default_rng(1)
    for num_patients in (6, 12):
        patients, held = [str(number) for number in range(num_patients)], 0
        for _ in range(400):
            shared, local = rng.normal(0.1, 1, num_patients), np.zeros(num_patients)
            rows = {SHARED: [{"dsc": one} for one in shared], LOCAL: [{"dsc": one} for one in local]}
            one = compare(rows, patients, {"dsc": "DSC"}, 0)[SHARED]["dsc"].against_local
            assert one is not None
            assert one.low is not None
            assert one.high is not None
            held += one.low <= 0.1 <= one.high
        assert 0.90 <= held / 400 <= 0.99
    few = compare({name: [{"dsc": 1.0}] * 5 for name in (SHARED, LOCAL)}, list("abcde"), {"dsc": "DSC"}, 0)
    assert few[SHARED]["dsc"].value.low is None


def test_fine_tuning_is_the_rounds_steps_at_a_share_of_their_rate() -> None:
    study = STUDY.model_copy(update={"strategy": FineTune(rounds=3, rate_share=0.2)})
    tuning, num_rounds = tuned(study)
    assert (num_rounds, tuning.rounds.num_rounds, tuning.strategy) == (3, 3, None)
    assert tuning.training.learning_rate == pytest.approx(0.2 * 0.01)
    assert alone(study).training == study.training


def test_where_layers_stay_the_sites_own_are_put_to_the_shared_ones(tmp_path: Path) -> None:
    study, site = with_strategy(STUDY, "fedbn"), SiteConfig(name="a", data=(tmp_path,), state=tmp_path / "state")
    first = get_weights(build_network(study))
    kept = site_strategy(site.state, study, first, study.name)
    stays, shared = set(kept.stays), {name: value + 1 for name, value in first.items() if name in kept.shared}
    kept.keep_final(shared, 2)
    with pytest.raises(InputError, match="which trains by fedbn, is not there"):
        own_of_study(site, study)
    kept.end(kept.begin(shared, 2), {name: value + 2 for name, value in first.items()})
    own = own_of_study(site, study)
    assert own.has_layers_of_its_own
    assert own.personal is None
    assert all(np.array_equal(value, first[name] + (2 if name in stays else 1)) for name, value in own.shared.items())
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.folder.iterdir())
    (kept.folder / "final.safetensors").write_bytes(b"half")
    with pytest.raises(RefusedError, match=r"final\.safetensors: what this site keeps cannot be read"):
        own_of_study(site, study)


def test_local_only_has_as_many_rounds_as_ran_where_an_earlier_ones_model_is_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9 rounds 3 ran, and the first was the best."""
    told = {**with_strategy(STUDY, "ditto").model_dump(), "validation": {"best_by": "dsc", "patience": 2}}
    told["rounds"]["num_rounds"] = 9
    study, site = StudyConfig.model_validate(told), SiteConfig(name="a", data=(tmp_path,), state=tmp_path / "state")
    first = get_weights(build_network(study))
    best, own = ({name: value + more for name, value in first.items()} for more in (1, 2))
    ran = Provenance(rounds_completed=1, sites={"a": 5})
    save_model(tmp_path / "model", study, best, ran, choice=Choice(by="dsc", value=0.5, of_rounds=3))
    with pytest.raises(InputError, match="which trains by ditto, is not there"):
        own_of_model(site, tmp_path / "model")
    kept = site_strategy(site.state, study, first, study.name)
    kept.keep_final(best, 3)
    for number in (1, 2, 3):
        kept.end(kept.begin(first, number), first, own if number == 3 else first)
    trained: list[tuple[str, int, int]] = []

    def train_alone(context: SiteContext, start: Weights, num_rounds: int, _: Path, name: str, *__: object) -> Weights:
        trained.append((name, num_rounds, context.study.rounds.num_rounds))
        return start

    monkeypatch.setattr(arms, "build_context", lambda _, settings, *__: SimpleNamespace(study=settings, learner=None))
    monkeypatch.setattr(arms, "train_alone", train_alone)
    for of in (own_of_study(site, study), own_of_model(site, tmp_path / "model")):
        assert equal(of.shared, best)
        assert equal(of.personal or {}, own)
        arms.make_arms(of, nothing)
        assert trained == [(LOCAL, 3, 9), (TUNED, 1, 1)]  # by the rates of 9 rounds, as the study was
        trained.clear()


def test_a_study_that_is_not_over_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "site.yaml").write_text(
        json.dumps({"name": "a", "data": [str(tmp_path / "data")], "state": str(tmp_path / "state")})
    )
    predicted = {"outcome": {"endpoint": "edss-plus-1"}, "clinical": ["age"], "model": {"kind": "lda"}}
    outcome = {"name": "s", "task": "classification", "classification": predicted}
    lesions = {"name": "s", "network": {"kind": "unet", "channels": [4, 8]}}
    both = run_main(main, "gain", tmp_path / "site.yaml", "--study", tmp_path / "a.yaml", "--model", tmp_path / "model")
    assert both.returncode == 2
    assert "one of --study and --model" in both.stderr
    for told, words in ((lesions, "is over"), (outcome, "is over")):
        (tmp_path / "study.yaml").write_text(json.dumps(told))
        result = run_main(main, "gain", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml")
        assert result.returncode == 2
        assert words in result.stderr


def test_a_refusal_is_told_in_words_without_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "site.yaml").write_text(json.dumps({"name": "a", "data": str(tmp_path / "data"), "state": "state"}))
    (tmp_path / "study.yaml").write_text(json.dumps({"name": "s", "network": {"kind": "unet", "channels": [4, 8]}}))
    for detail, told in (("what it kept is damaged", "what it kept is damaged"), ("", "site.log in the state folder")):

        def refuse(*_: object, detail: str = detail) -> None:
            raise RefusedError(Code.INTERNAL, detail)

        monkeypatch.setattr(arms, "own_of_study", refuse)
        result = run_main(main, "gain", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml")
        assert result.returncode == 2
        assert told in result.stderr
        assert "INTERNAL" not in result.stderr
