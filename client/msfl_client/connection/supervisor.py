"""`msfl-client start`: keeps the site's process alive and shows what it does; `status` and `stop` from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.progress import Progress

from msfl_client.connection.status import NodeStatus, read_status
from msfl_client.secure_aggregation.rosters import waiting_rosters
from msfl_client.site.kit_approval import approved_at, kit_to_use, what_waits
from msfl_client.site.passphrase import handed_by_a_person
from msfl_common.config.secrets import environment_without
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.system.files import private_folder
from msfl_common.system.lock import held
from msfl_common.system.processes import Child, python_command
from msfl_common.system.progress import alert, console, progress_bars

LOCK = "client.lock"
LOG = "node.log"
TICK_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
BAD_INPUT = 2


def supervise(site: SiteConfig, site_file: Path, set_serving: Callable[[bool], None] = lambda _: None) -> None:
    """Run the site's process until this one is told to stop; start it again whenever it ends by itself.

    `set_serving` is told whether it runs.

    Raises:
        InputError: the site is started already, or its key, kit or file are unsound; the fix is in the message.
    """
    log = site.state / LOG
    passphrase = handed_by_a_person(site) if site.key.exists() else None  # the process says which key is missing
    typed = [] if passphrase is None else [passphrase]
    command = python_command("msfl_client.connection.node", site_file, *(one.fileno() for one in typed))
    node = Child(command, log, environment_without(site.key_passphrase), inherits=typed)
    private_folder(site.state)
    taken = f"{site.state}: the site is started already; see `msfl-client status`"
    with held(site.state / LOCK, taken), progress_bars() as bars:
        shown = _Shown(bars, site.name)
        try:
            approved = approved_at(site)  # before the kit is read: what is approved from here on is seen below
            kit = kit_to_use(site)
            if waits := what_waits(site):
                alert(waits)
            node.start()
            while True:
                time.sleep(TICK_S)
                node.tend_log()
                if approved_at(site) != approved:
                    approved = approved_at(site)
                    if (new := kit_to_use(site)).digest != kit.digest:
                        console.print(f"{site.name}: another kit was approved; it is used from here on", soft_wrap=True)
                        kit = new
                        node.stop()
                        node.start()
                code = node.exit_code
                set_serving(code is None)
                if code is None:
                    shown.update(read_status(site.state))
                    with suppress(InputError):  # of a damaged file, which `status` names
                        shown.say_rosters(list(waiting_rosters(site.state)))
                elif code == BAD_INPUT:
                    raise InputError(last_error(log))
                elif (pause := node.restart_after_pause(FIRST_PAUSE_S, LONGEST_PAUSE_S)) is not None:
                    alert(f"{site.name}: the site's process ended ({code}); it starts again in {pause:.0f} s")
        finally:
            node.stop()
            for one in typed:
                one.close()


def last_error(log: Path) -> str:
    """The last error in the site's log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if " ERROR " in line]
    return lines[-1].split(" ERROR ", 1)[1] if lines else f"the site's process ended; look at {log}"


class _Shown:
    """What a person sees: a bar at a terminal, and a line for each change of state anywhere."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars = bars
        self._bar = bars.add_task(name, total=None, note="")
        self._name = name
        self._said = ""
        self._waiting: list[str] = []

    def say_rosters(self, waiting: list[str]) -> None:
        """Once for each study: a person has to confirm its roster of masked sums."""
        for study in waiting:
            if study not in self._waiting:
                alert(
                    f"{self._name}: study {study} waits for a person here: compare the roster of its masked sums over "
                    "the telephone, and confirm it, with `msfl-client roster SITE.yaml`"
                )
        self._waiting = waiting

    def update(self, status: NodeStatus | None) -> None:
        if status is None:
            return
        self._bars.update(
            self._bar,
            description=f"{self._name} {status.doing or status.state}",
            completed=status.done,
            total=status.total or None,
            note=f"round {status.round}  {status.note}" if status.state == "working" else status.reason,
        )
        line = one_line(status)
        seen_before = self._said and not self._said.startswith("offline")
        between_rounds = status.state == "waiting" and seen_before and not (status.refused or status.is_last)
        if line != self._said and status.state not in ("connecting", "stopped") and not between_rounds:
            self._said = line
            console.print(f"{self._name}: {line}", soft_wrap=True)


def one_line(status: NodeStatus) -> str:
    """What the site's process does, without what changes by the second."""
    match status.state:
        case "offline" | "waiting" | "connecting" if status.is_last:
            now = f" (offline: {status.reason})" if status.state == "offline" else ""
            return (
                f"study {status.study} is finished: its last request is answered; stop the site with `msfl-client "
                f"stop`, or leave it running for the coordinator's next study{now}"
            )
        case "offline":
            return f"offline: {status.reason}; trying again"
        case "working":
            return f"at work in round {status.round}"
        case "waiting":
            refused = f"; refused the last request: {status.refused}" if status.refused else ""
            return f"connected to {status.server}, study {status.study}; waiting{refused}"
        case _:
            return status.state
