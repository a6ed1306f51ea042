"""A survey among virtual sites on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from msfl_client.rounds.app import build_app
from msfl_common.config.study import StudyConfig
from msfl_common.system.progress import progress_bars
from msfl_server.research.simulation.folder import virtual_sites
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.survey import Survey
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.survey import take_survey
from msfl_server.run.display import RunDisplay


class _Shown(RunDisplay):
    """Shows for whom the survey waits; no rounds are run."""

    def on_start(self, _: RunState) -> None:
        """Nothing."""


def survey_here(study: StudyConfig, cohort: Path | None, site_paths: Sequence[Path]) -> Survey:
    """What virtual sites answer; nothing is left behind of those of a cohort.

    Raises:
        InputError: the sites cannot be read.
        RunError: none answered.
    """
    with tempfile.TemporaryDirectory(prefix="msfl-survey-") as folder, progress_bars() as progress:
        display = _Shown(progress, 1)
        sites = virtual_sites(cohort, list(site_paths), Path(folder), study)
        app = build_app(
            lambda context: sites[int(context.node_config["partition-id"])], display.on_progress, is_simulated=True
        )
        names = {number: site.name for number, site in enumerate(sites, start=1)}
        return take_survey(InProcessGrid(app, len(sites)), names, study, Path(folder), display)
