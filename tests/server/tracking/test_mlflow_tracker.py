"""Runs in a real MLflow store."""

from __future__ import annotations

import getpass
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.privacy_accounting import PrivacyPromise
from msfl_server.tracking.mlflow_tracker import track


@pytest.fixture(scope="module")
def base(tmp_path_factory, ready_store):
    """One store for the module; each test has an experiment in it."""
    folder = tmp_path_factory.mktemp("tracking")
    shutil.copy(ready_store, folder)
    return folder


@pytest.fixture
def store(base):
    return f"sqlite:///{base}/mlflow.db"


@pytest.fixture
def study(request):
    return StudyConfig(name=re.sub(r"[^a-zA-Z0-9]", "-", request.node.name)[:60])


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(store)


def steps(client, run_id, key):
    return [metric.step for metric in client.get_metric_history(run_id, key)]


def test_a_run_holds_settings_rounds_model_and_report(tmp_path, store, study, client, summary):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "model.json").write_text("{}")
    report = tmp_path / "report.html"
    report.write_text("<p>")
    with track(store, tmp_path, study, None) as tracker:
        for result in summary.history[:3]:
            tracker.log_round(result, summary.metrics)
        version = tracker.log_model(model)
        tracker.log_report(report)

    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["inputs.contrasts"] == '["T1w", "FLAIR"]'
    assert run.data.params["network.channels"] == "[16, 32, 64, 128]"
    assert steps(client, tracker.run_id, "dsc") == [1, 2, 3]
    assert run.data.metrics["train_loss"] == summary.history[2].train_loss
    assert run.data.metrics["dsc_ci95_low"] == summary.metrics["dsc"].ci95_low
    assert run.data.metrics["site/Ghent/dsc"] == summary.history[2].per_site["dsc"]["Ghent"]
    assert run.data.metrics["seconds"] == summary.history[2].seconds
    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {"model", "report.html"}

    registered = client.get_model_version(study.name, version)
    assert (version, registered.run_id, registered.status) == ("1", tracker.run_id, "READY")
    fetched = Path(client.download_artifacts(tracker.run_id, "model", str(tmp_path / "fetched")))
    assert sorted(file.name for file in fetched.iterdir()) == ["model.json", "model.safetensors"]


def test_a_resumed_run_goes_on_without_repeating_rounds(tmp_path, store, study, client, summary):
    with track(store, tmp_path, study, None) as first:
        for result in summary.history[:3]:
            first.log_round(result, {})
    with track(store, tmp_path, study, first.run_id) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        for result in summary.history[1:5]:
            second.log_round(result, {})
    assert second.run_id == first.run_id
    assert steps(client, first.run_id, "train_loss") == [1, 2, 3, 4, 5]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_a_run_registers_its_model_once(tmp_path, store, study, client):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with track(store, tmp_path, study, None) as first:
        first.log_model(tmp_path / "model")
    with track(store, tmp_path, study, first.run_id) as again:
        assert again.log_model(tmp_path / "model") == "1"
    with track(store, tmp_path / "another", study, None) as other:
        assert other.log_model(tmp_path / "model") == "2"


def test_what_a_model_promises_its_patients_is_logged(tmp_path, store, study, client):
    promise = PrivacyPromise(epsilon=2.5, delta=1e-5, noise_multiplier=1.0, releases=3)
    with track(store, tmp_path, study, None) as tracker:
        tracker.log_privacy(promise, 3)
        run_id = tracker.run_id
    metrics = client.get_run(run_id).data.metrics
    assert (metrics["privacy_epsilon"], metrics["privacy_delta"]) == (2.5, 1e-5)


def test_figures_of_test_patients_are_logged_beside_those_of_the_rounds(tmp_path, store, study, client, summary):
    with track(store, tmp_path, study, None) as tracker:
        tracker.log_final("test", summary.metrics, 12)
        run_id = tracker.run_id
    data, dsc = client.get_run(run_id).data, summary.metrics["dsc"]
    assert (data.metrics["test_dsc"], data.metrics["test_dsc_ci95_low"]) == (dsc.mean, dsc.ci95_low)
    assert data.tags["figures_of"] == "test patients"
    with track(store, tmp_path / "another", study, None) as tracker:
        tracker.log_final("validation", summary.metrics, 12)
        run_id = tracker.run_id
    data = client.get_run(run_id).data
    assert (data.metrics, data.tags["figures_of"]) == ({}, "validation patients, who may have chosen it")


def test_a_lost_run_is_replaced_with_a_warning(tmp_path, store, study, client, summary, caplog):
    with track(store, tmp_path, study, "0123456789abcdef0123456789abcdef") as tracker:
        tracker.log_round(summary.history[6], {})
    assert "starting a new one" in caplog.text
    assert steps(client, tracker.run_id, "seconds") == [7]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_ends_as_its_block_does(tmp_path, store, study, client, error, status):
    with pytest.raises(error), track(store, tmp_path, study, None) as tracker:
        raise error
    assert client.get_run(tracker.run_id).info.status == status


def test_a_store_that_fails_mid_study_does_not_stop_it(tmp_path, base, store, study, client, summary, caplog):
    def rename(old, new):
        with sqlite3.connect(base / "mlflow.db") as database:
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")
        database.close()

    with track(store, tmp_path, study, None) as tracker:
        rename("metrics", "gone")
        try:
            tracker.log_round(summary.history[0], {})
        finally:
            rename("gone", "metrics")
        assert "MLflow did not take round 1" in caplog.text
        tracker.log_round(summary.history[1], {})
    assert steps(client, tracker.run_id, "seconds") == [1, 2]


@pytest.mark.slow
def test_a_store_that_is_away_at_the_end_is_waited_for(tmp_path, study, summary):
    from mlflow import MlflowClient

    blocked = tmp_path / "store"
    blocked.write_text("a file where the store's folder is to be")
    uri = f"sqlite:///{blocked}/mlflow.db"
    with track(uri, tmp_path, study, None, patient=True) as tracker:
        tracker.log_round(summary.history[0], {})
        assert tracker.run_id is None
        threading.Timer(1.0, blocked.unlink).start()
        tracker.catch_up(60)
        assert steps(MlflowClient(uri), tracker.run_id, "seconds") == [1]


@pytest.mark.slow
def test_the_default_store_names_no_person_and_no_path(tmp_path, study, summary):
    out = tmp_path / "out"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with track(None, out, study, None) as tracker:
        tracker.log_round(summary.history[0], summary.metrics)
        tracker.log_model(tmp_path / "model")
    assert (out / "mlruns" / tracker.run_id / "artifacts" / "model" / "model.json").is_file()

    with sqlite3.connect(out / "mlflow.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        cells = {
            (table, column, str(value))
            for table in tables
            for row in [database.execute(f"SELECT * FROM {table}")]  # noqa: S608
            for values in row.fetchall()
            for column, value in zip([name for name, *_ in row.description], values, strict=True)
        }
    database.close()
    # Where artifacts lie must be known to a store without a server; nothing else holds a path.
    exempt = {("experiments", "artifact_location"), ("runs", "artifact_uri")}
    words = [str(tmp_path), str(Path.cwd()), str(Path.home()), *([getpass.getuser()] if _has_login() else [])]
    leaks = [cell for cell in cells if cell[:2] not in exempt and any(word in cell[2] for word in words)]
    assert leaks == []
    assert ("runs", "user_id", "msfl") in cells


def _has_login():
    """Containers may run as root, a word too common to look for."""
    return getpass.getuser() != "root"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://me:secret@127.0.0.1:9", r"http://127\.0\.0\.1:9 cannot be opened"),
        ("gopher://store", "unsupported URI"),
        ("sqlite:///{tmp}/text.db", "not a database"),
    ],
)
def test_a_store_out_of_reach_is_one_clear_line(tmp_path, study, uri, message):
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as the header of one" * 20)
    with (
        pytest.raises(InputError, match=message) as caught,
        track(uri.replace("{tmp}", str(tmp_path)), tmp_path, study, None),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert "me:secret" not in str(caught.value)


def test_a_folder_that_no_sqlite_uri_can_name_is_refused(tmp_path, study):
    with pytest.raises(InputError, match=r"no \? or %"), track(None, tmp_path / "50%", study, None):
        pass


def test_a_deleted_experiment_is_one_clear_line(tmp_path, store, study, client):
    client.delete_experiment(client.create_experiment(study.name))
    with pytest.raises(InputError, match="restore it or rename"), track(store, tmp_path, study, None):
        pass


@pytest.mark.slow
def test_a_run_prints_nothing(tmp_path):
    """In a process of its own: MLflow and alembic set their logging up once, at import."""
    program = (
        "import sys; from pathlib import Path; from msfl_common.config.study import StudyConfig;"
        "from msfl_server.tracking.mlflow_tracker import track\n"
        "with track(None, Path(sys.argv[1]), StudyConfig(name='quiet'), None): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_mlflow_stays_silent_about_its_own_level():
    assert logging.getLogger("mlflow").level == logging.CRITICAL


def test_stores_of_one_process_are_whole_and_apart(tmp_path, study):
    from mlflow import MlflowClient

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with track(None, tmp_path / name, study, None) as tracker:
            run_id = tracker.run_id
        client = MlflowClient(f"sqlite:///{tmp_path / name / 'mlflow.db'}")
        [experiment] = [one for one in client.search_experiments() if one.name != "Default"]
        assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [run_id]
        assert Path(experiment.artifact_location.removeprefix("file://")).is_relative_to(tmp_path / name)
        assert [path.name for path in (tmp_path / name).glob(".mlflow*")] == []
