"""The Python interface: what a notebook types, and the notebook of the documentation."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.notebooks import run_notebook

import msfl
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first-study.ipynb"
PILOT = msfl.StudyConfig(name="pilot")
SITE = msfl.SiteConfig(name="a", data=(Path("bids"),), state=Path("state"))
_NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def given(place: Path) -> dict[str, Any]:
    return run_notebook(NOTEBOOK, place)


@pytest.mark.slow
def test_the_notebook_gives_what_it_shows(given: dict[str, Any]) -> None:
    shown = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for before, now in zip(shown["cells"], given["cells"], strict=True):
        was, found = (_text_of(cell.get("outputs", [])) for cell in (before, now))
        assert _NUMBER.sub("#", was) == _NUMBER.sub("#", found)
        figures = [[float(number) for number in _NUMBER.findall(text)] for text in (was, found)]
        assert figures[0] == pytest.approx(figures[1], abs=0.05)
        assert before["cell_type"] == "markdown" or was, "a cell without output shows nothing"


@pytest.mark.slow
@pytest.mark.usefixtures("given")
def test_a_run_is_read_and_asked_for_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = msfl.read_run(str(place / "run"))
    asked = {"cohort": place / "cohort", "output": place / "run"}
    again = msfl.simulate(place / "study.yaml", **asked)
    assert again.summary == run.summary
    assert run.report.is_file()
    auroc = run.metrics.loc[("auroc", "all")]
    assert 0 <= auroc["ci95_low"] <= auroc["mean"] <= auroc["ci95_high"] <= 1
    sites = run.metrics.loc["auroc"].drop("all")
    assert set(sites.index) == {"site-a", "site-b", "site-c"}
    assert auroc["num_cases"] == sites["num_cases"].sum()
    assert list(run.history.index) == [one.round for one in run.summary.history]
    other = msfl.load_study(place / "study.yaml").model_copy(update={"seed": 1})
    with pytest.raises(msfl.InputError, match="another study, sites or settings"):
        msfl.simulate(other, **asked)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("given")
@pytest.mark.slow
def test_a_model_predicts_outcomes(place: Path, tmp_path: Path) -> None:
    model = msfl.read_run(place / "run").model
    assert model.task == "classification"
    assert "not signed" in model.origin
    found = model.predict(place / "cohort" / "site-a", tmp_path / "predicted")
    assert len(found) == 400
    usable = found[found["status"] == "ok"]
    assert len(usable) > 200
    assert np.allclose(usable["probability_0"] + usable["probability_1"], 1, atol=1e-5)
    table = (tmp_path / "predicted" / "predictions.tsv").read_bytes()
    assert table == (place / "predicted" / "predictions.tsv").read_bytes()
    with pytest.raises(msfl.MsflError, match="nowhere: no such folder"):
        model.predict(tmp_path / "nowhere", tmp_path / "untouched")
    assert not (tmp_path / "untouched").exists()


def test_a_model_outlines_lesions(make_site, tiny_study: msfl.StudyConfig, tmp_path: Path) -> None:
    weights = get_weights(build_network(tiny_study))
    save_model(tmp_path / "model", tiny_study, weights, Provenance(rounds_completed=1, sites={}))
    model = msfl.load_model(tmp_path / "model")
    found = model.predict(make_site(subjects=["sub-01"]).root, tmp_path / "out", device="cpu")
    assert list(found["participant_id"]) == ["sub-01"]
    assert found["lesion_count"].dtype.kind in "if"
    with pytest.raises(msfl.InputError, match="every_visit"):
        model.predict(tmp_path, tmp_path / "out", every_visit=True)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda folder: msfl.load_study(folder / "none.yaml"), "none.yaml: no such file"),
        (lambda folder: msfl.load_site(folder), "no such file"),
        (lambda folder: msfl.read_run(folder), "summary.json: no such file"),
        (lambda folder: msfl.load_model(folder), "model.json is missing"),
        (lambda folder: msfl.make_cohort(folder / "c", sites=0), "site"),
        (lambda folder: msfl.make_cohort(folder / "file" / "c", images=False), "cannot be written"),
        (lambda folder: msfl.simulate("x.yaml", output=folder / "o"), "expected either cohort or sites"),
        (lambda folder: msfl.simulate("x.yaml", output=folder / "o", cohort=folder), "x.yaml: no such file"),
        (lambda folder: msfl.simulate(PILOT, output=folder / "o", sites=[SITE, SITE]), "a name of its own; found a, a"),
        (
            lambda folder: msfl.simulate(PILOT, output=folder / "o", sites=[SITE]),
            "1 site trains (a), but rounds.quorum is 2",
        ),
    ],
)
def test_errors_are_typed_and_of_one_line(call, expected: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    with pytest.raises(msfl.MsflError) as caught:
        call(tmp_path)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_what_an_installation_lacks_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['mlflow'] = None\nimport msfl\ntry: msfl.simulate('s', cohort='c', output='o')\n"
    code += "except msfl.InputError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "simulate needs mlflow; install it with `pip install 'msfl[sim]'`\n", done.stderr


@pytest.mark.slow
def test_import_is_light_and_every_name_is_there() -> None:
    code = (
        "import sys, msfl, time; print(time.process_time()); print({'pydantic', 'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.3
    assert heavy == "set()"
    assert all(getattr(msfl, name) is not None for name in msfl.__all__)
    assert dir(msfl) == sorted(msfl.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        importlib.import_module("msfl").nonsense  # noqa: B018


def _text_of(outputs: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("text") or output["data"]["text/plain"]) for output in outputs)
