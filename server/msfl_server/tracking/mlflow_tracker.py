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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from msfl_common import __version__
from msfl_common.config.classification import Split
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.system.files import write_text
from msfl_server.results.patients import whom
from msfl_server.results.settings import flat_settings
from msfl_server.results.summary import MetricSummary, RoundSummary
from msfl_server.tracking.round_values import ROUND_MARK, beside, round_values
from msfl_server.tracking.store import STORE_FILE, check_sqlite, sqlite_uri

if TYPE_CHECKING:
    from msfl_common.privacy_accounting import PrivacyPromise

# Read by MLflow as it is imported. It would report its use to its makers over the internet.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Seven retries to reach a server would hold a round up for four minutes; the round's figures wait instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# A store on this machine is reached directly, whatever proxy leads out of the hospital.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
    filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "localhost,127.0.0.1"))
)
# Standard output belongs to the command's result.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

from mlflow import MlflowClient as MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException as MlflowException
from sqlalchemy.exc import SQLAlchemyError

# What MLflow has to say comes back as exceptions, which are reported here in one line.
for _chatty in ("mlflow", "alembic", "urllib3.connectionpool"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)
_log = logging.getLogger(__name__)

T = TypeVar("T")

MODEL_FOLDER = "model"
RUN_ID_FILE = "mlflow_run_id"
_METRICS_PER_BATCH = 1000  # MLflow's limit
_PARAMS_PER_BATCH = 100  # MLflow's limit
_TRY_AGAIN_S = 2.0
STORE_ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError)
# `mlflow.user` and `mlflow.source.name` would else be filled with the login and the program's path.
TAGS = {"mlflow.user": "msfl", "mlflow.source.name": "msfl-server", "msfl.version": __version__}


@dataclass(frozen=True)
class _Run:
    """A run in a store that answered: its name and the last round that is there."""

    client: MlflowClient
    run_id: str
    last_round: int


class Tracker:
    """One MLflow run. Made by `track`.

    A store that fails, or is not there yet, while the study runs does not stop it: a warning says so, and what
    could not be logged is tried again with the next round and at the end.
    """

    def __init__(self, open_run: Callable[[], _Run], model_name: str) -> None:
        self._open_run = open_run
        self._opened: _Run | None = None
        self._model_name = model_name
        self._last_round = 0
        self._waiting: list[tuple[int, list[Metric]]] = []

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run, for `track` to resume; None until the store could be opened."""
        return self._opened.run_id if self._opened else None

    def open(self) -> _Run:
        """Find or make the run in the store, unless that is done."""
        if self._opened is None:
            self._opened = self._open_run()
            there = self._opened.last_round
            self._last_round = max(self._last_round, there)
            self._waiting = [(number, values) for number, values in self._waiting if number > there]
        return self._opened

    def log_round(
        self,
        result: RoundSummary,
        metrics: Mapping[str, MetricSummary],
        earlier: Iterable[RoundSummary] = (),
    ) -> None:
        """Log a round's aggregates, with the round as the step; a round that is there already is skipped.

        Args:
            result: means, loss and time of the round.
            metrics: the same means with their intervals; empty when the round had no validation.
            earlier: the rounds before it, for those that the store has missed; they go there without intervals,
                which are not kept.
        """
        for one in earlier:
            self._queue(one, {})
        if self._queue(result, metrics):
            self._attempt(f"round {result.round}", self._send_waiting)

    def log_privacy(self, promise: PrivacyPromise, last_round: int) -> None:
        """Log what the model promises each patient: epsilon, where there is noise, and delta, with the last round."""
        found = {"privacy_epsilon": promise.epsilon, "privacy_delta": promise.delta}
        self._log_last("epsilon and delta", found, last_round)

    def log_final(self, split: Split, metrics: Mapping[str, MetricSummary], last_round: int) -> None:
        """Log whose figures the report shows and, where those are not of a round, the figures, with the last round."""
        self._attempt("whose figures they are", lambda run: run.client.set_tag(run.run_id, "figures_of", whom(split)))
        if split == "test":
            told = {f"test_{name}": metric for name, metric in metrics.items()}
            means = {name: metric.mean for name, metric in told.items()}
            self._log_last("the test", means | dict(beside(told)), last_round)

    def _log_last(self, what: str, found: Mapping[str, float | None], last_round: int) -> None:
        now_ms = int(time.time() * 1000)
        values = [Metric(name, value, now_ms, last_round) for name, value in found.items() if value is not None]
        self._attempt(what, lambda run: run.client.log_batch(run.run_id, metrics=values))

    def log_model(self, model_dir: Path) -> str | None:
        """Log the model folder as it is (no pickle) and register it as a version of the study's model.

        Returns:
            The version, the same one when the run has registered its model before; None when the store
            failed.
        """
        return self._attempt("the model", lambda run: self._register(run, model_dir))

    def log_report(self, path: Path) -> None:
        """Log the report page."""
        self._attempt("the report", lambda run: run.client.log_artifact(run.run_id, str(path)))

    def log_choice(self, words: str) -> None:
        """Say which round's model is registered: metrics end with the last round, whichever that is."""
        self._attempt("the choice", lambda run: run.client.set_tag(run.run_id, "handed_out", words))

    def catch_up(self, patience_s: float) -> None:
        """At the end of the rounds: wait for a store that is away, for what still waits, the report and the model."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            try:
                run = self.open()
                self._send_waiting(run)
                run.client.get_run(run.run_id)
                return
            except STORE_ERRORS:
                time.sleep(_TRY_AGAIN_S)

    def close(self, status: str) -> None:
        """Log what still waits and end the run with an MLflow status: FINISHED, FAILED or KILLED."""
        self._attempt("the last rounds", self._send_waiting)
        self._attempt("the end", lambda run: run.client.set_terminated(run.run_id, status))

    def _queue(self, result: RoundSummary, metrics: Mapping[str, MetricSummary]) -> bool:
        if result.round <= self._last_round:
            return False
        self._last_round = result.round
        now_ms = int(time.time() * 1000)
        values = [Metric(key, value, now_ms, result.round) for key, value in round_values(result, metrics)]
        self._waiting.append((result.round, values))
        return True

    def _send_waiting(self, run: _Run) -> None:
        while self._waiting:
            _, values = self._waiting[0]
            for start in range(0, len(values), _METRICS_PER_BATCH):
                run.client.log_batch(run.run_id, metrics=values[start : start + _METRICS_PER_BATCH])
            del self._waiting[0]

    def _register(self, run: _Run, model_dir: Path) -> str:
        run.client.log_artifacts(run.run_id, str(model_dir), MODEL_FOLDER)
        name = self._model_name
        versions = run.client.search_model_versions(f"name='{name}' and run_id='{run.run_id}'")
        if versions:
            return str(versions[0].version)
        if not run.client.search_registered_models(f"name='{name}'"):
            run.client.create_registered_model(name)
        source = f"runs:/{run.run_id}/{MODEL_FOLDER}"
        return str(run.client.create_model_version(name, source, run_id=run.run_id).version)

    def _attempt(self, what: str, action: Callable[[_Run], T]) -> T | None:
        try:
            return action(self.open())
        except STORE_ERRORS as error:
            _log.warning("MLflow did not take %s (%s); the study continues", what, first_line(error))
            return None


@contextmanager
def track(
    uri: str | None, out: Path, study: StudyConfig, resume_run_id: str | None, patient: bool = False
) -> Iterator[Tracker]:
    """Open the MLflow run of a study, and end it with the block: FINISHED, FAILED, or KILLED by Ctrl-C.

    Args:
        uri: any MLflow tracking URI; None for SQLite in `out/mlflow.db`.
        out: the run's folder; artifacts go to `out/mlruns` unless the URI is a server, which decides itself.
        study: named as the experiment, its settings logged as parameters.
        resume_run_id: run to resume, from `Tracker.run_id`; without it, the last run that was opened for
            `out`. When the store does not know it, a warning says so and a new run starts.
        patient: continue without a store that cannot be opened yet, and try again with every round.

    Raises:
        InputError: the store cannot be opened, unless `patient`, or its path cannot be written as a URI.
    """
    out.mkdir(parents=True, exist_ok=True)
    store = uri or sqlite_uri(out)
    tracker = Tracker(lambda: _open(store, uri is None, out, study, resume_run_id), study.name)
    try:
        tracker.open()
    except STORE_ERRORS as error:
        fault = f"MLflow store {_without_password(store)} cannot be opened: {first_line(error)}"
        if not patient:
            raise InputError(fault) from None
        _log.warning("%s; the study continues, its rounds are logged later", fault)
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracker.close(status)


def own_store(out: Path) -> str:
    """The URI of the SQLite store in a run's folder, which is made when it is not there."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "mlflow.db").exists():
        make_store(out)
    return sqlite_uri(out)


_empty_store: list[bytes] = []  # as this process made it: that takes over a second, and every fold or stage wants one


def make_store(folder: Path) -> None:
    """Create MLflow's tables under another name first: a store cut off in the making can never be opened."""
    with TemporaryDirectory(dir=folder, prefix=".mlflow.") as aside:
        store = Path(aside) / STORE_FILE
        if _empty_store:
            with store.open("wb") as stream:
                stream.write(_empty_store[0])
                stream.flush()
                os.fsync(stream.fileno())
        else:
            MlflowClient(sqlite_uri(Path(aside))).search_experiments(max_results=1)
            _empty_store.append(store.read_bytes())
        store.replace(folder / STORE_FILE)


def _open(uri: str, is_own: bool, out: Path, study: StudyConfig, resume_run_id: str | None) -> _Run:
    if is_own:
        own_store(out)
    check_sqlite(uri)
    client = MlflowClient(uri)
    # A checkpoint does not know a run that was opened after it; this file does.
    note = out / RUN_ID_FILE
    wanted = resume_run_id or (note.read_text(encoding="utf-8").strip() if note.exists() else "")
    run_id = wanted if wanted and _resume(client, wanted) else None
    if run_id is None:
        run = client.create_run(experiment_of(client, uri, out, study.name), tags=TAGS, run_name=study.name)
        run_id = run.info.run_id
    write_text(note, run_id + "\n")  # before the first round goes there
    known = client.get_run(run_id).data.params
    params = [Param(name, value) for name, value, _ in flat_settings(study) if name not in known]
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    last_round = max((mark.step for mark in client.get_metric_history(run_id, ROUND_MARK)), default=0)
    return _Run(client, run_id, last_round)


def _resume(client: MlflowClient, run_id: str) -> bool:
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        _log.warning("MLflow has no run %s to resume; starting a new one from here on", run_id)
        return False
    return True


def experiment_of(client: MlflowClient, uri: str, out: Path, name: str) -> str:
    """MLflow's name of an experiment, which is made where it is not there; `out` holds what a store here is given.

    Raises:
        MlflowException: it was deleted, or cannot be made.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        on_server = uri.startswith(("http://", "https://", "databricks"))
        location = None if on_server else (out / "mlruns").resolve().as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        raise MlflowException(f"experiment {name!r} is deleted there; restore it or rename the study")
    return str(found.experiment_id)


def first_line(error: Exception) -> str:
    """What an error says, without passwords."""
    return _without_password((str(error).strip() or type(error).__name__).splitlines()[0])


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)
