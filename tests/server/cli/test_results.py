"""`msfl-server report`: what it shows and links to of runs that are finished, killed, not begun, or none."""

from __future__ import annotations

import json

import pytest
from tests.commands import run_main

from msfl_common.config.study import StudyConfig
from msfl_server.cli.main import main
from msfl_server.results.summary import Summary, read_summary, write_summary
from msfl_server.rounds.checkpoint import RunState
from msfl_server.run.found import find_run


def leave_checkpoint(out, summary, number):
    folder = out / "checkpoints" / f"round_{number:04d}"
    folder.mkdir(parents=True)
    state = RunState(round=number, history=summary.history[:number], sites=summary.sites)
    (folder / "state.json").write_text(state.model_dump_json())


def finish(out, summary):
    (out / "model").mkdir()
    (out / "model" / "model.json").write_text("{}")
    (out / "report.html").write_text("")
    write_summary(out, summary)


@pytest.fixture
def simulated(tmp_path, study, summary):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"study": study.model_dump(mode="json"), "sites": []}))
    leave_checkpoint(out, summary, 3)
    return out


@pytest.fixture
def deployed(tmp_path, study, summary):
    folder = tmp_path / "study"
    (folder / "run").mkdir(parents=True)
    (folder / "server.yaml").write_text("hosts: [fl.example.org]\nmlflow_port: 19445\n")
    (folder / "run" / "study.json").write_text(study.model_dump_json())
    (folder / "run" / "mlflow.db").write_text("")  # of the stage before: not where this study's curves are
    leave_checkpoint(folder / "run", summary, 12)
    finish(folder / "run", summary)
    return folder


def words(result):
    return " ".join(result.stdout.split())


def test_a_killed_run_shows_its_complete_rounds_and_how_it_goes_on(simulated):
    result = run_main(main, "report", simulated)
    assert result.returncode == 0
    assert "3 of 12 rounds, not finished" in words(result)
    assert f"msfl-server simulate --resume {simulated}" in words(result)
    assert "report:" not in words(result)  # neither is written yet
    assert "model:" not in words(result)
    told = Summary.model_validate_json(run_main(main, "report", simulated, "--json").stdout)
    assert (told.rounds_completed, told.finished) == (3, False)


def test_a_run_that_was_stopped_before_shows_the_rounds_since(simulated, summary):
    write_summary(simulated, summary.model_copy(update={"rounds_completed": 2, "finished": False}))
    assert find_run(simulated).summary.rounds_completed == 3


@pytest.mark.parametrize("content", [b'{"study": {"name"', b"[]", b"{}", b"\xff"])
def test_a_run_whose_beginning_is_damaged_is_named(simulated, content):
    (simulated / "run.json").write_bytes(content)
    result = run_main(main, "report", simulated)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{simulated}/run.json: ")
    assert "it is damaged, or of another version: restore it from a backup" in " ".join(result.stderr.split())


def test_a_run_without_a_round_says_so(simulated):
    (simulated / "checkpoints" / "round_0003" / "state.json").unlink()
    (simulated / "checkpoints" / "round_0003").rmdir()
    assert "0 of 12 rounds, not finished" in words(run_main(main, "report", simulated))


def test_a_model_that_ends_by_itself_is_complete(simulated, summary):
    finish(simulated, summary.model_copy(update={"rounds_completed": 3}))  # as earlier versions wrote it
    result = run_main(main, "report", simulated)
    assert "complete after round 3 of at most 12" in words(result)
    assert f"report: {simulated / 'report.html'}" in words(result)
    assert "not finished" not in words(result)


def test_a_deployed_study_names_its_own_store(deployed):
    for folder in (deployed, deployed / "run"):
        told = words(run_main(main, "report", folder))
        assert "curves: http://127.0.0.1:19445 while the server runs" in told
        assert f"sqlite:///{deployed / 'mlflow' / 'mlflow.db'}" in told
        assert str(deployed / "run" / "mlflow.db") not in told
    (deployed / "server.yaml").write_text("hosts: [fl.example.org]\nmlflow: https://mlflow.example.org\n")
    assert "curves: https://mlflow.example.org" in words(run_main(main, "report", deployed))
    (deployed / "run" / "model" / "model.json").unlink()
    (deployed / "run" / "summary.json").unlink()
    assert f"the server does not run: `msfl-server start {deployed}`" in words(run_main(main, "report", deployed))


def test_a_study_in_two_stages_shows_the_one_that_it_has_come_to(tmp_path, summary):
    study = StudyConfig(
        name="both",
        task="classification",
        segmentation={"num_rounds": 9},
        classification={
            "outcome": {"endpoint": "edss-worsening"},
            "features": ["lesion_volume_ml"],
            "model": {"kind": "logistic"},
        },
    )
    (tmp_path / "run.json").write_text(json.dumps({"study": study.model_dump(mode="json"), "sites": []}))
    leave_checkpoint(tmp_path / "segmentation", summary, 2)
    assert "not finished: 2 of 9 rounds of segmentation are complete" in words(run_main(main, "report", tmp_path))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cross-validation.json", "holds a cross-validation: open"),
        ("folds.json", "the command that began it continues it"),
        ("pipelines.json", "holds a run of pipelines: open"),
        ("other.txt", "holds no run; expected"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, name, told):
    (tmp_path / name).write_text("{}")
    result = run_main(main, "report", tmp_path)
    assert result.returncode == 2
    assert told in " ".join(result.stderr.split())


def test_a_study_without_a_run_says_how_it_begins(tmp_path):
    (tmp_path / "server.yaml").write_text("hosts: [fl.example.org]\n")
    result = run_main(main, "report", tmp_path)
    assert result.returncode == 2
    assert "`msfl-server start" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_summary_of_earlier_versions_is_read_as_it_is(tmp_path, summary):
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
