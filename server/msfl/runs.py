"""Simulated runs, and the results of any run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from msfl.cohorts import Cohort
from msfl.extras import needs
from msfl.models import Model, load_model
from msfl_common.config.secrets import refuse_password
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.system.progress import silence

if TYPE_CHECKING:
    from msfl_server.research.simulation.folder import RunSetup
    from msfl_server.results.summary import Summary

ALL_SITES = "all"


@dataclass(frozen=True)
class Run:
    """A run on disk: what it measured, and the model that it trained.

    Attributes:
        folder: everything that the run left.
        summary: `summary.json`, every field described there.
    """

    folder: Path
    summary: Summary

    @property
    def metrics(self) -> pd.DataFrame:
        """The final model, measured at the sites: a row for each metric over all sites, and for each at each site.

        Columns are mean, ci95_low, ci95_high (in the metric's unit, NaN where there is none) and num_cases.
        """
        rows = []
        for name, metric in self.summary.metrics.items():
            num_cases = sum(at.num_cases for at in metric.per_site.values())
            rows.append((name, ALL_SITES, metric.mean, metric.ci95_low, metric.ci95_high, num_cases))
            for site, at in metric.per_site.items():
                rows.append((name, site, at.mean, at.ci95_low, at.ci95_high, at.num_cases))
        table = pd.DataFrame(rows, columns=["metric", "site", "mean", "ci95_low", "ci95_high", "num_cases"])
        return table.astype({"ci95_low": float, "ci95_high": float}).set_index(["metric", "site"])

    @property
    def history(self) -> pd.DataFrame:
        """A row for each round: train_loss, num_sites, seconds, and the pooled mean of each metric, NaN without one."""
        rows = [
            {
                "round": one.round,
                "train_loss": one.train_loss,
                "num_sites": len(one.sites_ok),
                "seconds": one.seconds,
                **one.metrics,
            }
            for one in self.summary.history
        ]
        return pd.DataFrame(rows).set_index("round") if rows else pd.DataFrame()

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / "report.html"

    @property
    def model(self) -> Model:
        """The trained model.

        Raises:
            ModelFolderError: no round was completed, or its files were altered.
        """
        return load_model(self.folder / self.summary.model)


def simulate(
    study: str | Path | StudyConfig,
    *,
    output: str | Path,
    cohort: str | Path | Cohort | None = None,
    sites: Sequence[str | Path | SiteConfig] = (),
    backend: Literal["inprocess", "ray"] = "inprocess",
    tracking_uri: str | None = None,
    start_from: str | Path | None = None,
    model: str | Path | None = None,
    progress: bool = False,
) -> Run:
    """Train a study among virtual sites on this machine, with the apps that real sites run.

    The same call with the same `output` resumes a run that was interrupted, and gives one that is complete at once.

    Args:
        study: its settings, or their file.
        output: folder for everything that the run leaves.
        cohort: folder of BIDS folders, one a site; or else
        sites: files or settings of the sites.
        backend: in this process, or Flower's engine on Ray.
        tracking_uri: MLflow server; None for SQLite under `output`.
        start_from: what a network starts from: a model folder, a checkpoint or a MONAI bundle; weights of a ResNet18.
        model: the model folder that a study with `evaluate` measures.
        progress: show each round on stderr, and progress bars at a terminal.

    Raises:
        InputError: settings, sites or folders that do not fit; the fix is in the message.
        RunError: the run could not go on; what it has completed is in `output`.
    """
    with needs("sim", "simulate"):
        import msfl_server.tracking.mlflow_tracker  # noqa: F401 - what may be missing comes first, PyTorch takes seconds
        from msfl_server.research.simulation.run import run_simulated

    refuse_password(tracking_uri or "", "tracking_uri", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    folder = Path(output)
    setup = _setup(study, cohort, sites, folder, _path(start_from), _path(model))
    with nullcontext() if progress else silence():
        return Run(folder, run_simulated(setup, folder, backend, tracking_uri))


def read_run(folder: str | Path) -> Run:
    """The results of a run, simulated or among real sites.

    Args:
        folder: of a run, or of a coordinator's study.

    Raises:
        InputError: there is no run that completed a round.
    """
    with needs("server", "read_run"):
        from msfl_server.results.summary import read_summary

    found = Path(folder)
    found = found / "run" if (found / "server.yaml").is_file() else found
    return Run(found, read_summary(found))


def _setup(
    study: str | Path | StudyConfig,
    cohort: str | Path | Cohort | None,
    sites: Sequence[str | Path | SiteConfig],
    out: Path,
    start_from: Path | None,
    model: Path | None,
) -> RunSetup:
    """The run that is asked for: a new one, or the one that lies in `out`."""
    from msfl_server.research.simulation.folder import RUN_FILE, read_setup, sites_of_cohort, start_run

    if (cohort is None) == (not sites):
        raise InputError("expected either cohort or sites")
    settings = study if isinstance(study, StudyConfig) else load_study(Path(study))
    if cohort is not None:
        virtual = sites_of_cohort(cohort.folder if isinstance(cohort, Cohort) else Path(cohort), out, settings)
    else:
        virtual = tuple(one if isinstance(one, SiteConfig) else load_site(Path(one)) for one in sites)
    names = [site.name for site in virtual]
    if len(set(names)) < len(names):
        raise InputError(f"each site needs a name of its own; found {', '.join(names)}")
    if not (out / RUN_FILE).exists():
        return start_run(settings, virtual, out, start_from, model)
    found = read_setup(out)
    named = start_from and start_from.resolve(), model and model.resolve()
    if (found.study, found.sites, found.start_from, found.model) != (settings, virtual, *named):
        raise InputError(f"{out}: holds a run of another study, sites or settings; choose another output")
    return found


def _path(named: str | Path | None) -> Path | None:
    return None if named is None else Path(named)
