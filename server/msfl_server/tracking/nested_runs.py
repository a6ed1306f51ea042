"""A comparison in MLflow: a run for the whole, and one within it for each run that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.system.files import write_text
from msfl_server.results.settings import flat_settings
from msfl_server.tracking.mlflow_tracker import (
    RUN_ID_FILE,
    STORE_ERRORS,
    TAGS,
    MlflowClient,
    MlflowException,
    experiment_of,
    first_line,
    own_store,
)
from msfl_server.tracking.store import check_sqlite

_NAME = "mlflow.runName"


@dataclass(frozen=True)
class NestedRun:
    """A run within a comparison: what it is, and its figures by name."""

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def log_comparison(
    uri: str | None,
    out: Path,
    study: StudyConfig,
    metrics: Mapping[str, float],
    nested: Sequence[NestedRun],
    files: Sequence[Path],
) -> str:
    """Log a comparison; one that was logged before gets what is new in it.

    Args:
        uri: any MLflow tracking URI; None for SQLite in `out/mlflow.db`.
        out: the comparison's folder, which remembers its run.
        study: the settings of the whole.
        metrics: figures of the whole.
        nested: the runs within.
        files: pages and documents of the whole.

    Returns:
        MLflow's name of the run.

    Raises:
        InputError: the store cannot be opened or does not take it.
    """
    try:
        store = uri or own_store(out)
        check_sqlite(store)
        client = MlflowClient(store)
        experiment = experiment_of(client, store, out, f"{study.name}-comparison")
        parent = _parent(client, experiment, out, study)
        for name, value in metrics.items():
            client.log_metric(parent, name, value)
        there = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10_000)
        known = {run.data.tags.get(_NAME) for run in there}
        for one in nested:
            if one.name not in known:
                _log_nested(client, experiment, parent, one)
        for file in files:
            client.log_artifact(parent, str(file))
        client.set_terminated(parent, "FINISHED")
    except STORE_ERRORS as error:
        raise InputError(f"MLflow did not take the comparison ({first_line(error)}); its files are in {out}") from None
    return parent


def _parent(client: MlflowClient, experiment: str, out: Path, study: StudyConfig) -> str:
    note = out / RUN_ID_FILE
    if note.exists():
        run_id = note.read_text(encoding="utf-8").strip()
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:  # of another store
            pass
    run_id = str(client.create_run(experiment, tags=TAGS, run_name=study.name).info.run_id)
    write_text(note, run_id + "\n")
    for name, value, _ in flat_settings(study):
        client.log_param(run_id, name, value)
    return run_id


def _log_nested(client: MlflowClient, experiment: str, parent: str, one: NestedRun) -> None:
    tags = {**TAGS, "mlflow.parentRunId": parent}
    run_id = client.create_run(experiment, tags=tags, run_name=one.name).info.run_id
    for key, value in one.params.items():
        client.log_param(run_id, key, value)
    for key, figure in one.metrics.items():
        client.log_metric(run_id, key, figure)
    client.set_terminated(run_id, "FINISHED")
