"""Whether a site can take part: its machine, its key, its joining kit and the way to the server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.error import ApiErrorCode

from msfl_client.connection.probe import Answer, NoAnswerError, ask_server
from msfl_client.connection.server_trust import trust_of
from msfl_client.egress.gateway import check_request
from msfl_client.secure_aggregation.rosters import roster_lines, waiting_rosters
from msfl_client.site.keys import public_key_file
from msfl_client.site.kit_approval import kit_to_use, what_waits
from msfl_client.site.passphrase import handed_by_a_person, unlock
from msfl_common import __version__
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, RefusedError
from msfl_common.system.devices import pick_devices
from msfl_common.system.files import check_private
from msfl_common.trust.kit import SignedKit

Level = Literal["pass", "warn", "fail", "skip"]

_MIN_FREE_GB = 10
_WARN_DAYS = 30
# Flower refuses a request that was signed over 305 s ago, or over 5 s ahead of the server's clock. An answer's
# date tells the server's time to a second or so.
_BEHIND_WARN_S, _BEHIND_FAIL_S = 60.0, 240.0
_AHEAD_WARN_S, _AHEAD_FAIL_S = 2.0, 4.0


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        name: what was looked at.
        level: "fail" keeps the site from taking part; "skip" could not be looked at before another row passes.
        text: what was found.
        fix: what to do about it; empty when there is nothing to do.
    """

    name: str
    level: Level
    text: str
    fix: str = ""


def check_connection(site: SiteConfig) -> list[Row]:
    """Look at the machine, the key, the kit and the server, in this order; nothing is changed anywhere."""
    rows = [_device(site), _disk(site.state)]
    key_row, key = _key(site)
    kit_row, kit = _kit(site)
    rows += [key_row, kit_row]
    if kit is None:
        reason = "not looked at: needs the kit"
        return rows + [Row(name, "skip", reason) for name in ("server", "clock", "authenticated", "study")]
    return [*rows, *_server_rows(kit, site, key), _study(site, kit.study), *_masks(site, kit.study), *_receipts(site)]


def _device(site: SiteConfig) -> Row:
    try:
        devices = pick_devices(site.device)
        return Row("device", "pass", "; ".join(map(_describe, devices)))
    except RefusedError as error:
        return Row("device", "fail", error.why, "correct `device:` in the site file, or set it to auto")
    except RuntimeError as error:  # a GPU that is there, but lost or held by another process
        text = f"{site.device}: {' '.join(str(error).split())}"
        return Row("device", "fail", text, "see what `nvidia-smi` says, or set `device: cpu`")


def _describe(device: torch.device) -> str:
    """What a device is, and its memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}: {_gb(free)} of {_gb(total)} GB free"
    kind = "Apple GPU" if device.type == "mps" else f"CPU, {os.cpu_count()} cores"
    return f"{kind}: {_gb(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} GB memory"


def _disk(state: Path) -> Row:
    place = next(folder for folder in (state, *state.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Row("disk", "fail", f"{place}: cannot be written", "give this account access, or correct `state:`")
    if state.exists():
        try:
            check_private(state)
        except InputError as error:
            return Row("disk", "fail", *_text_and_fix(error))
    free = shutil.disk_usage(place).free
    text = f"{_gb(free)} GB free for {state}"
    if free < _MIN_FREE_GB * 10**9:
        return Row("disk", "warn", text, f"free some space: {_MIN_FREE_GB} GB are a comfortable start")
    return Row("disk", "pass", text)


def _key(site: SiteConfig) -> tuple[Row, ec.EllipticCurvePrivateKey | None]:
    try:
        typed = handed_by_a_person(site)
        key = unlock(site, None if typed is None else typed.fileno())
    except InputError as error:
        return Row("key", "fail", *_text_and_fix(error)), None
    return Row("key", "pass", f"{site.key}, for this account alone"), key


def _kit(site: SiteConfig) -> tuple[Row, SignedKit | None]:
    try:
        approved = kit_to_use(site)
    except InputError as error:
        return Row("kit", "fail", *_text_and_fix(error)), None
    kit, expires = approved.kit, approved.authority.not_valid_after_utc
    text = f"study {kit.study}, authority valid until {expires:%Y-%m-%d}"
    if waits := what_waits(site):
        return Row("kit", "warn", *_text_and_fix(InputError(waits))), approved
    if (expires - datetime.now(UTC)).days < _WARN_DAYS:
        return Row("kit", "warn", text, "ask the coordinator for a new kit"), approved
    if kit.msfl_version != __version__:
        text += f"; made by MSFL {kit.msfl_version}, installed is {__version__}"
        return Row("kit", "warn", text, f"install MSFL {kit.msfl_version}"), approved
    return Row("kit", "pass", text), approved


def _study(site: SiteConfig, study: StudyConfig) -> Row:
    try:
        check_request(site.policy, study, round_number=1)
    except RefusedError as error:
        return Row("study", "fail", f"goes beyond this site's policy: {error.why}", "change `policy:`, or decline")
    does = f"{study.rounds.num_rounds} rounds" if study.evaluate is None else "a trained model measured"
    return Row("study", "pass", f"{study.name}: {study.task}, {does}, within the policy")


def _masks(site: SiteConfig, study: StudyConfig) -> Iterator[Row]:
    """What the site needs for sums under masks, and whether its people have confirmed who takes part in them."""
    if study.secure_aggregation.method != "masks":
        return
    folder = site.key.parent
    if not os.access(folder, os.W_OK):
        text = f"{folder}: cannot be written; beside the key, what has left under masks is noted"
        yield Row("masks", "fail", text, "give this account access, or move the key, and correct `key:`")
        return
    try:
        line = next((line for study_name, line in roster_lines(site.state) if study_name == study.name), None)
        waits = study.name in waiting_rosters(site.state)
    except InputError as error:
        yield Row("masks", "fail", *_text_and_fix(error))
        return
    if line is None:
        text = "the roster comes with the coordinator's first request; a person here then compares and confirms it"
        yield Row("masks", "pass", text)
    else:
        yield Row("masks", "warn" if waits else "pass", *(_text_and_fix(InputError(line)) if waits else (line, "")))


def _receipts(site: SiteConfig) -> Iterator[Row]:
    if "ledger_head" not in site.policy.allow:
        text = "the coordinator signs no receipts for this site's ledger: the policy does not allow ledger_head"
        yield Row("receipts", "warn", text, "add ledger_head to `allow:` of the policy")


def _server_rows(kit: SignedKit, site: SiteConfig, key: ec.EllipticCurvePrivateKey | None) -> Iterator[Row]:
    try:
        answer = ask_server(kit.kit.address, trust_of(kit), key)
    except NoAnswerError as error:
        yield Row("server", "fail", error.text, error.fix)
        yield from (Row(name, "skip", "not looked at: needs the server") for name in ("clock", "authenticated"))
        return
    yield _server(kit.kit.address, answer)
    yield _clock(answer.ahead_s)
    yield _authenticated(answer, key, site)


def _server(address: str, answer: Answer) -> Row:
    if answer.status != httpx.codes.UNAUTHORIZED and answer.code is None:
        fix = "ask the coordinator whether the server runs, and where; a proxy in between may answer instead"
        return Row("server", "fail", f"{address} answers, but not as a study's server: HTTP {answer.status}", fix)
    text = f"{address} answers over TLS; its certificate is valid for {answer.certificate_days} days"
    if answer.certificate_days < _WARN_DAYS:
        return Row("server", "warn", text, "tell the coordinator to run `msfl-server renew-certificate`")
    return Row("server", "pass", text)


def _clock(ahead_s: float | None) -> Row:
    fix = "set this machine's clock, best by NTP"
    if ahead_s is None:
        return Row("clock", "warn", "the server does not tell the time", "see that both clocks are set by NTP")
    text = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if ahead_s > _AHEAD_FAIL_S or -ahead_s > _BEHIND_FAIL_S:
        return Row("clock", "fail", f"{text}: it refuses requests signed at another time", fix)
    if ahead_s > _AHEAD_WARN_S or -ahead_s > _BEHIND_WARN_S:
        return Row("clock", "warn", text, fix)
    return Row("clock", "pass", text)


def _authenticated(answer: Answer, key: ec.EllipticCurvePrivateKey | None, site: SiteConfig) -> Row:
    if key is None:
        return Row("authenticated", "skip", "not looked at: needs the key")
    if answer.code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return Row("authenticated", "pass", "the server knows this site's key")
    if answer.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        fix = (
            f"send {public_key_file(site.key)} to the coordinator, who authorises it with "
            f"`msfl-server add-site STUDY_DIR {site.name} --public-key FILE`"
        )
        return Row("authenticated", "fail", "the server does not know this site's key", fix)
    if answer.status == httpx.codes.UNAUTHORIZED:
        return Row("authenticated", "fail", "the server refuses this site's signature", "set this machine's clock")
    text = f"the server answers HTTP {answer.status} to a signed request"
    return Row("authenticated", "fail", text, "ask the coordinator to look at the server's log")


def _text_and_fix(error: InputError) -> tuple[str, str]:
    """An error's line, parted where its fix begins."""
    text, _, fix = " ".join(str(error).split()).rpartition("; ")
    return (text, fix) if text else (fix, "")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.0f}"
