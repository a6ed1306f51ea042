"""The coordinator's process of `msfl-server survey`: opens a run at the SuperLink, and asks the sites once."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import httpx

from msfl_common.config.study import load_study
from msfl_common.errors import MsflError
from msfl_common.system.cli import explain
from msfl_common.system.foreign_text import log_to_stderr
from msfl_common.system.processes import end_with_starter
from msfl_server.flower.coordinator import BAD_INPUT, link_address
from msfl_server.flower.server_process import open_run
from msfl_server.report.survey import write_page
from msfl_server.results.survey import SURVEY_FILE, SURVEY_PAGE, write_survey
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.exchange import gather, presence
from msfl_server.rounds.survey import take_survey
from msfl_server.run.display import ONLINE
from msfl_server.study.folder import list_sites, open_notary, open_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import load_server
from msfl_server.study.site_keys import read_public_key

log = logging.getLogger(__name__)


class _Log:
    """Says in the log for whom the survey waits, when that changes."""

    said: tuple[str, list[str]] = ("", [])

    def on_start(self, _: RunState) -> None:
        """No rounds are run."""

    def on_round(self, _: RunState) -> None:
        """No rounds are run."""

    def on_wait(self, _: int, what: str, sites: list[str], left_s: float) -> None:
        """A line."""
        if sites and (what, sites) != self.said:
            self.said = what, sites
            log.info("waiting for %s of %s, at most %.0f s", what, ", ".join(sites), left_s)


def survey_study(folder: StudyFolder) -> None:
    """Ask the sites that come online while a round would wait for them.

    Raises:
        RunError: none answered.
    """
    study, server, listener = load_study(folder.study_file), load_server(folder.server_file), _Log()
    expected = list_sites(folder)
    with open_run(link_address(folder, server)) as (grid, _):
        grid.notary = open_notary(folder)
        grid.members = lambda: list_sites(folder)
        grid.registered_key = lambda site: read_public_key(folder.public_key_file(site))
        one = study.rounds.model_copy(update={"quorum": 1})
        gather(grid, expected, one, lambda sites, left_s: listener.on_wait(1, ONLINE, sites, left_s))
        names = {node: here.site for node, here in (presence(grid) or {}).items()}
        folder.run.mkdir(exist_ok=True)
        survey = take_survey(grid, names, study, folder.run, listener)
    missing = sorted(set(expected) - set(names.values()))
    survey = survey.with_absent(missing)
    write_survey(folder.root / SURVEY_FILE, survey)
    write_page(folder.root / SURVEY_PAGE, survey)


def main() -> None:
    """Entry point of the process."""
    log_to_stderr()
    for chatty in ("httpx", "flwr"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_starter()
    try:
        survey_study(open_study(Path(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    except MsflError as error:  # a survey is not tried again by itself
        log.error("%s", error)
        sys.exit(BAD_INPUT)
    except (httpx.HTTPError, OSError) as error:
        log.error("%s", *explain(error)[1])
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
