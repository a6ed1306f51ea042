"""A real MLflow server: started by our command, gone, back, and gone from the beginning."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest
from tests.mlflow_service import MlflowService

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.system.files import private_folder
from msfl_server.tracking.mlflow_server import (
    listen,
    login,
    mlflow_command,
    mlflow_environment,
    password_file,
    turn_away,
    wait_ready,
)
from msfl_server.tracking.mlflow_tracker import track


@pytest.fixture(scope="module")
def shared(tmp_path_factory, ready_store):
    """One server for the module, since a start takes some seconds; each test has a study of its own in it."""
    made = MlflowService(tmp_path_factory.mktemp("mlflow") / "my study #1")
    private_folder(made.study_dir / "mlflow")
    shutil.copy(ready_store, made.study_dir / "mlflow")
    yield made
    made.kill()


def log_in(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "msfl")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)


@pytest.fixture
def server(shared, monkeypatch):
    """The server, running."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # an answer is not worth waiting for here
    log_in(shared, monkeypatch)
    if not wait_ready(shared.port, 0):
        shared.start()
    return shared


@pytest.fixture
def absent(shared, monkeypatch):
    """The server, not running."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log_in(shared, monkeypatch)
    shared.kill()
    return shared


@pytest.fixture
def study(request):
    return StudyConfig(name=re.sub(r"[^a-zA-Z0-9]", "-", request.node.name)[:60])


def logged(server, study):
    """How often each round is in the store, over all runs of the study, and their states."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    runs = client.search_runs([client.get_experiment_by_name(study.name).experiment_id])
    marks = [client.get_metric_history(run.info.run_id, key) for run in runs for key in ("train_loss", "seconds")]
    steps = [Counter(mark.step for mark in history) for history in marks]
    return steps, [run.info.status for run in runs]


def once(num_rounds):
    """One run that has every round once: in its losses, and in its times."""
    return [dict.fromkeys(range(1, num_rounds + 1), 1)] * 2


@pytest.mark.slow
def test_the_page_opens_here_and_nowhere_else(server, tmp_path, study, summary):
    status, page = server.ask("/", host=f"localhost:{server.port}")
    assert (status, b"<title>MLflow</title>" in page) == (200, True)
    assert server.ask("/", host="127.0.0.1:5000")[0] == 200  # through a tunnel from another port
    assert server.ask("/", host="evil.example")[0] == 403
    assert server.ask("/", host="10.0.0.7")[0] == 403
    assert server.ask("/", password=None)[0] == 401
    create = "/api/2.0/mlflow/experiments/create"
    assert server.ask(create, "POST", Origin="http://evil.example")[0] == 403
    assert server.ask(create, "POST", Origin=f"http://localhost:{server.port}")[0] == 400
    with socket.socket() as outside:
        outside.settimeout(2)
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith("127."):
            assert outside.connect_ex((address, server.port)) != 0

    report = tmp_path / "report.html"
    report.write_text("<p>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with track(server.uri, tmp_path / "run", study, None) as tracker:
        tracker.log_round(summary.history[0], summary.metrics)
        tracker.log_report(report)
        assert tracker.log_model(tmp_path / "model") == "1"
    folder = server.study_dir / "mlflow"
    assert sorted(path.name for path in folder.iterdir()) == ["artifacts", "mlflow.db", "password", "tmp"]
    assert not list((folder / "tmp").iterdir())
    assert sorted(path.name for path in (folder / "artifacts").rglob("*") if path.is_file()) == [
        "model.json", "report.html",
    ]  # fmt: skip
    assert not list((tmp_path / "run").glob("mlruns"))


@pytest.mark.long
def test_a_server_killed_while_it_makes_its_store_starts_again(tmp_path):
    server = MlflowService(tmp_path)
    server.launch()
    while not any(path.stat().st_size > 150_000 for path in tmp_path.rglob("mlflow.db")):  # whole, it has over 500 kB
        time.sleep(0.02)
    server.kill()
    try:
        server.start()
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_that_dies_mid_run_gets_every_round_once(server, tmp_path, study, summary, caplog):
    rounds = summary.history
    with track(server.uri, tmp_path, study, None, patient=True) as tracker:
        tracker.log_round(rounds[0], summary.metrics)
        server.kill()
        tracker.log_round(rounds[1], summary.metrics)
        tracker.log_round(rounds[2], summary.metrics)
        server.start()
        tracker.log_round(rounds[3], summary.metrics)
        server.kill()
        tracker.log_round(rounds[4], summary.metrics)
        server.start()
    assert logged(server, study) == (once(5), ["FINISHED"])
    assert caplog.text.count("did not take") == 3


@pytest.mark.slow
def test_a_server_that_comes_late_gets_every_round_once(absent, tmp_path, study, summary, caplog):
    with track(absent.uri, tmp_path, study, None, patient=True) as tracker:
        assert "cannot be opened" in caplog.text
        tracker.log_round(summary.history[0], summary.metrics)
        assert tracker.run_id is None
        absent.start()
        tracker.log_round(summary.history[1], summary.metrics)
        assert tracker.run_id is not None
    assert logged(absent, study) == (once(2), ["FINISHED"])


@pytest.mark.slow
def test_a_run_restarted_without_a_server_sends_what_is_missing_later(server, tmp_path, study, summary):
    from mlflow import MlflowClient

    def log(tracker, last):
        tracker.log_round(summary.history[last], summary.metrics, summary.history[:last])

    with track(server.uri, tmp_path, study, None, patient=True) as tracker:
        log(tracker, 0)
        log(tracker, 1)
    first = tracker.run_id
    server.kill()
    with track(server.uri, tmp_path, study, first, patient=True) as tracker:
        log(tracker, 1)
        log(tracker, 2)
    assert tracker.run_id is None
    with track(server.uri, tmp_path, study, None, patient=True) as tracker:
        log(tracker, 3)
        server.start()
        log(tracker, 4)
    assert tracker.run_id == first
    assert logged(server, study) == (once(5), ["FINISHED"])
    intervals = MlflowClient(server.uri).get_metric_history(first, "dsc_ci95_low")
    assert [metric.step for metric in intervals] == [1, 2, 4, 5]  # round 3's were in a session that is gone


KILLED = """
import os, signal, sys
from pathlib import Path
from msfl_common.config.study import StudyConfig
from msfl_server.results.summary import read_summary
from msfl_server.tracking.mlflow_tracker import track
uri, out, name, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
history = read_summary(out).history
with track(uri, out, StudyConfig(name=name), None, patient=True) as tracker:
    tracker.log_round(history[last], {}, history[:last])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_a_process_killed_before_its_run_id_is_in_a_checkpoint_goes_on_with_that_run(server, tmp_path, study, summary):
    """Round 3 is in a checkpoint, its run was opened after it, and the process dies: nobody was told the run's id."""
    from msfl_server.results.summary import write_summary

    write_summary(tmp_path, summary)
    for last in (2, 2, 3):  # the second kill comes before a further checkpoint
        program = [sys.executable, "-c", KILLED, server.uri, str(tmp_path), study.name, str(last)]
        assert subprocess.run(program, timeout=120, check=False).returncode == -signal.SIGKILL
    with track(server.uri, tmp_path, study, None, patient=True) as tracker:
        tracker.log_round(summary.history[5], summary.metrics, summary.history[:5])
    assert logged(server, study) == (once(6), ["FINISHED"])


@pytest.mark.long
def test_a_proxy_does_not_stand_between_a_run_and_its_own_server(server, tmp_path, study):
    program = (
        "import sys; from pathlib import Path; from msfl_common.config.study import StudyConfig;"
        "from msfl_server.tracking.mlflow_tracker import track\n"
        "with track(sys.argv[1], Path(sys.argv[2]), StudyConfig(name='near'), None): pass"
    )
    subprocess.run(
        [sys.executable, "-c", program, server.uri, str(tmp_path)],
        env=os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        timeout=120,
        check=True,
    )


def test_the_environment_holds_no_setting_of_mlflow_but_ours():
    given = {"PATH": "/bin", "MLFLOW_TRACKING_URI": "x", "MLFLOW_TRACKING_PASSWORD": "x", "_MLFLOW_AUTH": "x"}
    made = mlflow_environment(given)
    assert made["PATH"] == "/bin"
    assert "x" not in made.values()
    assert made["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_folder_that_no_sqlite_uri_can_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \? or %"):
        mlflow_command(tmp_path / "50%", 9445)


def test_a_server_that_is_not_there_is_not_ready():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not wait_ready(free.getsockname()[1], 0.5)


def test_the_password_is_made_once_and_only_its_account_reads_it(tmp_path):
    file = password_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    first = login(file)
    assert login(password_file(tmp_path)) == first
    assert len(first[1]) > 40
    file.chmod(0o644)
    with pytest.raises(InputError, match=r"chmod 600"):
        login(file)


@pytest.mark.parametrize(("content", "found"), [("a:b:c\n", ("a", "b:c")), ("secret", ("msfl", "secret"))])
def test_a_login_is_read_from_its_file(tmp_path, content, found):
    file = tmp_path / "login"
    file.touch(mode=0o600)
    file.write_text(content)
    assert login(file) == found


@pytest.mark.parametrize("content", ["", "\n", ":", "user:", ":password"])
def test_half_a_login_is_refused(tmp_path, content):
    file = tmp_path / "login"
    file.touch(mode=0o600)
    file.write_text(content)
    with pytest.raises(InputError, match="USER:PASSWORD"):
        login(file)


@pytest.mark.slow
def test_who_asks_while_the_server_is_away_is_turned_away_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with listen(port) as listener, socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        turn_away(listener)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
