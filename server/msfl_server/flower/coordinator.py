"""`msfl-server start`: keeps the study's processes alive until its last round is done.

    superlink   Flower's SuperLink, for sites and for the run
    mlflow      MLflow's server, unless server.yaml names another
    run         the rounds, from the last checkpoint on; started again with a new SuperLink, or when it dies

It holds no state of its own: killed and started again, it resumes.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from msfl_common.config.secrets import environment_without
from msfl_common.config.study import load_study
from msfl_common.errors import InputError, RunError
from msfl_common.system.files import quoted, write_bytes
from msfl_common.system.processes import Child, python_command
from msfl_server.flower.control import LinkAddress, connect
from msfl_server.flower.object_folder import remove_traces
from msfl_server.flower.superlink import LinkSettings
from msfl_server.run.status import RunStatus, read_status
from msfl_server.study.folder import list_sites
from msfl_server.study.paths import StudyFolder
from msfl_server.study.ports import check_ports
from msfl_server.study.server_config import ServerConfig, load_server
from msfl_server.study.site_keys import was_removed
from msfl_server.tracking import mlflow_server
from msfl_server.tracking.gate import USER

LOCK = "server.lock"
TICK_S = 0.25  # a site that is removed is refused one of these later
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
LINK_START_S = 60.0
BAD_INPUT = 2

Say = Callable[[str], None]


class Coordinator:
    """The processes of one study."""

    def __init__(
        self,
        folder: StudyFolder,
        say: Say,
        set_serving: Callable[[bool], None] = lambda _: None,
        look: Callable[[], None] = lambda: None,
        surveys: bool = False,
    ) -> None:
        """`look` is called some times a second, and once more when the run has ended.

        With `surveys`, the sites are asked for a survey in place of the rounds, and MLflow is not needed.
        """
        self._folder = folder
        self._look = look
        self._say = say
        self._set_serving = set_serving
        self._server = load_server(folder.server_file)
        load_study(folder.study_file)
        check_ports(folder, self._server)
        self._link_address, settings = link_address(folder, self._server), link_settings(folder, self._server)
        elsewhere = environment_without(self._server.mlflow_login)
        self._link = Child(settings.arguments(), folder.logs / "superlink.log", elsewhere)
        process, log = ("survey_process", "survey.log") if surveys else ("server_process", "run.log")
        self._run_log, self._run_fails = folder.logs / log, "no survey" if surveys else "the run cannot continue"
        self._run = Child(python_command(f"msfl_server.flower.{process}", folder.root), self._run_log)
        self._mlflow = None
        if self._server.mlflow is None and not surveys:
            self._mlflow_port = mlflow_server.listen(self._server.mlflow_port)
            command = mlflow_server.mlflow_command(folder.root, self._server.mlflow_port, self._mlflow_port.fileno())
            environment = mlflow_server.mlflow_environment(elsewhere)
            self._mlflow = Child(command, folder.logs / "mlflow.log", environment, [self._mlflow_port])
        self._children = [child for child in (self._run, self._link, self._mlflow) if child is not None]
        self._sites_seen: dict[str, float] | None = None
        self._ends: dict[str, tuple[str, int]] = {}  # by process: why it ended last, and how often for that
        self._studied = folder.study_file.read_bytes()

    def run(self) -> RunStatus | None:
        """Keep everything going until the run is finished; its last status.

        Raises:
            RunError: the SuperLink does not start.
            InputError: the run cannot continue with these settings or sites; its log says why.
        """
        try:
            if self._mlflow is not None:
                opens = mlflow_server.password_file(self._folder.root)
                uri = mlflow_server.tracking_uri(self._server.mlflow_port)
                self._say(f"curves: {uri} (user {USER}, password in {opens})")
                self._mlflow.start()
            self._run.start()  # it takes seconds to load, as the SuperLink does, and waits for it
            self._start_link()
            while True:
                time.sleep(TICK_S)
                for child in self._children:
                    child.tend_log()
                if self._mlflow is not None and self._mlflow.exit_code is not None:
                    mlflow_server.turn_away(self._mlflow_port)
                    self._revive(self._mlflow, "MLflow", "rounds are kept for it")
                if self._link.exit_code is not None:
                    self._say(f"the SuperLink ended (exit code {self._link.exit_code}); starting it again")
                    self._run.stop(patience_s=5)
                    self._run.start()
                    self._start_link()
                self._authorise()
                code = self._run.exit_code  # before the look, which then sees all that an ended run has written
                self._look()
                self._say_if_study_changed()
                if code == 0:
                    return read_status(self._folder.status)
                if code == BAD_INPUT:
                    raise InputError(f"{self._run_fails}: {last_line(self._run_log)}")
                if code is not None:
                    self._revive(self._run, "the run", last_line(self._run_log))
        finally:
            for child in self._children:
                child.stop()
            remove_traces(self._folder.database)  # also when the SuperLink had no time to

    def _revive(self, child: Child, name: str, note: str) -> None:
        """Start a process that ended anew, after a pause; the reason is said once, and not again until it differs."""
        pause = child.restart_after_pause(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        if pause is None:
            return
        before, times = self._ends.get(name, ("", 0))
        times = times + 1 if note == before else 1
        self._ends[name] = note, times
        if times == 1:
            self._say(f"{name} ended (exit code {child.exit_code}; {note}); it starts again in {pause:.0f} s")
        elif times == 2:
            self._say(
                f"{name} ended for the same reason; it is tried again every {LONGEST_PAUSE_S:.0f} s, without a further "
                "line, until the reason is another or Ctrl-C ends it"
            )

    def _say_if_study_changed(self) -> None:
        """A line when study.yaml is not what the server was started with, which alone counts until it ends."""
        try:
            found = self._folder.study_file.read_bytes()
        except OSError:
            return
        if found != self._studied:
            self._studied = found
            self._say(
                f"{self._folder.study_file}: was changed, without effect on this run: change it back before the server "
                f"is next started, or stop it, move {self._folder.run} away, and begin anew with new kits"
            )

    def _start_link(self) -> None:
        """Start the SuperLink and wait until it answers with the right sites authorised."""
        self._set_serving(False)
        self._link.start()
        end = time.monotonic() + LINK_START_S
        self._sites_seen = None
        while self._link.exit_code is None and time.monotonic() < end:
            if self._authorise():
                self._set_serving(True)
                return
            time.sleep(0.2)
        self._link.stop()
        raise RunError(f"the SuperLink does not start: {last_line(self._folder.logs / 'superlink.log')}")

    def _authorise(self) -> bool:
        """Bring the SuperLink's sites in line with `sites/`; whether it answered, or nothing was to be done."""
        keys = {name: self._folder.public_key_file(name) for name in list_sites(self._folder)}
        try:
            seen = {name: path.stat().st_mtime for name, path in keys.items()}
            if seen == self._sites_seen:
                return True
            back = {name for name, path in keys.items() if was_removed(path)}
            wanted = {name: path for name, path in keys.items() if name not in back}
            with connect(self._link_address) as control:
                added, removed, spent = control.authorise(wanted)
        except (httpx.HTTPError, FileNotFoundError):  # the file: a site removed at this very moment
            return False
        for name in removed:
            self._say(f"site {name}: authority taken away" if name not in added else f"site {name}: new key")
        for name in added:
            if name not in removed:
                self._say(f"site {name}: authorised")
        for name in sorted({*spent, *back}):
            self._say(
                f"site {name}: its key was taken away before and stays so; run `msfl-server remove-site "
                f"{quoted(self._folder.root)} {name}`, have the site make a new key, then `msfl-server add-site`; "
                "where the old key is in nobody else's hands, add that one and start the server again"
            )
        self._sites_seen = seen
        return True


def control_secret(folder: StudyFolder) -> Path:
    """The file of the secret that opens the control port; made, mode 0600, when it is missing."""
    path = folder.ca_key.with_name("control.secret")
    if not path.exists():
        write_bytes(path, (secrets.token_urlsafe(32) + "\n").encode(), secret=True)
    return path


def link_settings(folder: StudyFolder, server: ServerConfig) -> LinkSettings:
    """What the study's SuperLink is started with."""
    return LinkSettings(
        bind=server.bind,
        port=server.port,
        control_port=server.control_port,
        ca_certificate=folder.ca_certificate,
        certificate=folder.server_certificate,
        certificate_key=folder.server_key,
        database=folder.database,
        secret=control_secret(folder),
    )


def link_address(folder: StudyFolder, server: ServerConfig) -> LinkAddress:
    """How the study's SuperLink is reached from this machine."""
    return LinkAddress(server.control_port, folder.ca_certificate, control_secret(folder), folder.database)


def tracking_uri(server: ServerConfig) -> str:
    """Where the run's metrics go."""
    return server.mlflow or mlflow_server.tracking_uri(server.mlflow_port)


def tracking_login(folder: StudyFolder, server: ServerConfig) -> tuple[str, str] | None:
    """User and password for it; None where the environment has them, or none are needed.

    Raises:
        InputError: their file is missing or open to others.
    """
    if server.mlflow is None:
        return mlflow_server.login(mlflow_server.password_file(folder.root))
    return None if server.mlflow_login is None else mlflow_server.login(server.mlflow_login)


def last_line(log: Path) -> str:
    """The last line of a log, without its time and level."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    except OSError:
        lines = []
    line = lines[0] if lines else "no log"
    for level in (" ERROR ", " WARNING ", " INFO "):
        line = line.split(level, 1)[-1]
    return line.strip()


logging.getLogger("httpx").setLevel(logging.WARNING)
