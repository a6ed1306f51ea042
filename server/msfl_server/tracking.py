"""Aggregates of a run in MLflow: settings, every round, the model as a registered version, the report.

Nothing else goes there: no per-case value, no user name, no source file. Only aggregates that the sites'
policies let out reach the coordinator in the first place. MLflow itself writes one path: the artifact folder
of a store without a server.

MLflow takes over a second to import, so import this module where a run starts, not at the top of a command
line.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from msfl_common import __version__
from msfl_common.config import StudyConfig
from msfl_common.errors import InputError
from msfl_server.settings import flat_settings
from msfl_server.summary import MetricSummary, RoundSummary

# Read by MLflow as it is imported. It would report its use to its makers over the internet.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Seven retries to reach a server would hold a round up for four minutes; the round's figures wait instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# Standard output belongs to the command's result.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

# What MLflow has to say comes back as exceptions, which are reported here in one line.
for _chatty in ("mlflow", "alembic", "urllib3.connectionpool"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)
_log = logging.getLogger(__name__)

T = TypeVar("T")

MODEL_FOLDER = "model"
_METRICS_PER_BATCH = 1000  # MLflow's limit
_PARAMS_PER_BATCH = 100  # MLflow's limit
_STORE_ERRORS = (MlflowException, SQLAlchemyError, ImportError, OSError)
# Logged last in a round: where it is, the whole round is.
_ROUND_MARK = "seconds"
# `mlflow.user` and `mlflow.source.name` would else be filled with the login and the program's path.
_TAGS = {"mlflow.user": "msfl", "mlflow.source.name": "msfl-server", "msfl.version": __version__}


class Tracker:
    """One MLflow run. Made by `track`.

    A store that fails while the study runs does not stop it: a warning says so, and what could not be logged
    is tried again with the next round and at the end.

    Attributes:
        run_id: MLflow's name of the run; pass it to `track` to resume.
    """

    def __init__(self, client: MlflowClient, run_id: str, model_name: str, last_round: int) -> None:
        self.run_id = run_id
        self._client = client
        self._model_name = model_name
        self._last_round = last_round
        self._waiting: list[list[Metric]] = []

    def log_round(self, result: RoundSummary, metrics: Mapping[str, MetricSummary]) -> None:
        """Log a round's aggregates, with the round as the step; a round that is there already is skipped.

        Args:
            result: loss and time of the round.
            metrics: the round's validation, empty when it had none.
        """
        if result.round <= self._last_round:
            return
        self._last_round = result.round
        now_ms = int(time.time() * 1000)
        self._waiting.append(
            [Metric(key, value, now_ms, result.round) for key, value in _round_values(result, metrics)]
        )
        self._attempt(f"round {result.round}", self._send_waiting)

    def log_model(self, model_dir: Path) -> str | None:
        """Log the model folder as it is (no pickle) and register it as a version of the study's model.

        Returns:
            The version, the same one when the run has registered its model before; None when the store
            failed.
        """
        return self._attempt("the model", lambda: self._register(model_dir))

    def log_report(self, path: Path) -> None:
        """Log the report page."""
        self._attempt("the report", lambda: self._client.log_artifact(self.run_id, str(path)))

    def close(self, status: str) -> None:
        """Log what still waits and end the run with an MLflow status: FINISHED, FAILED or KILLED."""
        self._attempt("the last rounds", self._send_waiting)
        self._attempt("the end", lambda: self._client.set_terminated(self.run_id, status))

    def _send_waiting(self) -> None:
        while self._waiting:
            values = self._waiting[0]
            for start in range(0, len(values), _METRICS_PER_BATCH):
                self._client.log_batch(self.run_id, metrics=values[start : start + _METRICS_PER_BATCH])
            del self._waiting[0]

    def _register(self, model_dir: Path) -> str:
        self._client.log_artifacts(self.run_id, str(model_dir), MODEL_FOLDER)
        name = self._model_name
        versions = self._client.search_model_versions(f"name='{name}' and run_id='{self.run_id}'")
        if versions:
            return str(versions[0].version)
        if not self._client.search_registered_models(f"name='{name}'"):
            self._client.create_registered_model(name)
        source = f"runs:/{self.run_id}/{MODEL_FOLDER}"
        return str(self._client.create_model_version(name, source, run_id=self.run_id).version)

    def _attempt(self, what: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except _STORE_ERRORS as error:
            _log.warning("MLflow did not take %s (%s); the study goes on", what, _first_line(error))
            return None


@contextmanager
def track(uri: str | None, out: Path, study: StudyConfig, resume_run_id: str | None) -> Iterator[Tracker]:
    """Open the MLflow run of a study, and end it with the block: FINISHED, FAILED, or KILLED by Ctrl-C.

    Args:
        uri: any MLflow tracking URI; None for SQLite in `out/mlflow.db`.
        out: the run's folder; artifacts go to `out/mlruns` unless the URI is a server, which decides itself.
        study: named as the experiment, its settings logged as parameters.
        resume_run_id: run to go on with, from `Tracker.run_id`. When the store does not know it, a warning
            says so and a new run starts.

    Raises:
        InputError: the store cannot be opened, or its path cannot be written as a URI.
    """
    out.mkdir(parents=True, exist_ok=True)
    is_own = uri is None
    uri = uri or _default_uri(out)
    try:
        if is_own and not (out / "mlflow.db").exists():
            _make_store(out)
        tracker = _open(uri, out, study, resume_run_id)
    except (*_STORE_ERRORS, sqlite3.Error) as error:
        raise InputError(f"MLflow store {_without_password(uri)} cannot be opened: {_first_line(error)}") from None
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracker.close(status)


def _default_uri(out: Path) -> str:
    path = (out / "mlflow.db").resolve().as_posix()
    if "?" in path or "%" in path:
        raise InputError(f"{out}: MLflow's SQLite store allows no ? or % in a path; choose another folder")
    return f"sqlite:///{path}"


def _make_store(out: Path) -> None:
    """Create MLflow's tables under another name first: a store cut off in the making can never be opened."""
    with TemporaryDirectory(dir=out, prefix=".mlflow.") as folder:
        MlflowClient(_default_uri(Path(folder))).search_experiments(max_results=1)
        (Path(folder) / "mlflow.db").replace(out / "mlflow.db")


def _open(uri: str, out: Path, study: StudyConfig, resume_run_id: str | None) -> Tracker:
    _check_sqlite(uri)
    client = MlflowClient(uri)
    run_id = resume_run_id if resume_run_id and _resume(client, resume_run_id) else None
    if run_id is None:
        run = client.create_run(_experiment(client, uri, out, study.name), tags=_TAGS, run_name=study.name)
        run_id = run.info.run_id
    known = client.get_run(run_id).data.params
    params = [Param(name, value) for name, value, _ in flat_settings(study) if name not in known]
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    last_round = max((mark.step for mark in client.get_metric_history(run_id, _ROUND_MARK)), default=0)
    return Tracker(client, run_id, study.name, last_round)


def _check_sqlite(uri: str) -> None:
    """Fail at once where MLflow would retry for 100 seconds: a file that is no database, or out of reach."""
    if not uri.startswith("sqlite:///"):
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    finally:
        connection.close()


def _resume(client: MlflowClient, run_id: str) -> bool:
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        _log.warning("MLflow has no run %s to resume; starting a new one from here on", run_id)
        return False
    return True


def _experiment(client: MlflowClient, uri: str, out: Path, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        on_server = uri.startswith(("http://", "https://", "databricks"))
        location = None if on_server else (out / "mlruns").resolve().as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        raise MlflowException(f"experiment {name!r} is deleted there; restore it or rename the study")
    return str(found.experiment_id)


def _round_values(result: RoundSummary, metrics: Mapping[str, MetricSummary]) -> Iterator[tuple[str, float]]:
    if result.train_loss is not None:
        yield "train_loss", result.train_loss
    for name, metric in metrics.items():
        yield name, metric.mean
        if metric.ci95_low is not None and metric.ci95_high is not None:
            yield f"{name}_ci95_low", metric.ci95_low
            yield f"{name}_ci95_high", metric.ci95_high
        for site, at_site in metric.per_site.items():
            yield f"site/{site}/{name}", at_site.mean
    yield _ROUND_MARK, result.seconds


def _first_line(error: Exception) -> str:
    return _without_password((str(error).strip() or type(error).__name__).splitlines()[0])


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)
