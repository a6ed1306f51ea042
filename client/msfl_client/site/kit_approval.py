"""Which joining kit a person at the site has approved: the only one that the site uses.

What lies in the kit's folder is what has arrived. The approved kit is kept whole in the state folder, so whoever can
change the former changes nothing until a person here says yes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from msfl_common.config.base import Frozen
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, PrivateFolderError
from msfl_common.system.files import check_private, is_open_to_others, private_folder, write_bytes
from msfl_common.trust.kit import KIT_FILES, SignedKit, parse_kit, read_kit

APPROVAL_FILE = "approved-kit.json"
_MOST_BYTES = 1024 * 1024
_APPROVE = "look at it, and approve it, with `msfl-client approve SITE.yaml`"


class Approval(Frozen):
    """The file in the state folder."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    time: AwareDatetime = Field(description="when it was approved, UTC")
    files: dict[str, str] = Field(description="the kit's files, by name")


def approve_kit(site: SiteConfig, kit: SignedKit) -> None:
    """Keep a kit, which `check_site` has passed, as the one to use.

    Raises:
        InputError: the state folder is not this account's alone.
    """
    private_folder(site.state)
    files = {name: kit.files[name].decode() for name in KIT_FILES}
    approval = Approval(time=datetime.now(UTC).replace(microsecond=0), files=files)
    write_bytes(site.state / APPROVAL_FILE, (approval.model_dump_json(indent=1) + "\n").encode(), secret=True)


def approved_kit(site: SiteConfig) -> SignedKit | None:
    """The kit that was approved, checked once more; None where none was.

    Raises:
        InputError: the file is damaged or not this account's alone, or the kit's authority has expired.
        PrivateFolderError: this account may not read it.
    """
    path = site.state / APPROVAL_FILE
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
            found = os.fstat(stream.fileno())
            content = stream.read(_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise PrivateFolderError(f"{path}: belongs to another account; run as the site's own") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; remove it, and {_APPROVE}") from None
    if is_open_to_others(found.st_mode) or (os.name == "posix" and found.st_uid not in (0, os.geteuid())):
        raise InputError(f"{path}: other accounts may have changed it; remove it, and {_APPROVE}")
    try:
        files = Approval.model_validate_json(content).files
    except ValidationError:
        raise InputError(f"{path}: damaged; remove it, and {_APPROVE}") from None
    kit = parse_kit({name: text.encode() for name, text in files.items()}, str(path))
    check_site(site, kit, site.kit)
    return kit


def approved_at(site: SiteConfig) -> int:
    """When the approved kit was kept, in nanoseconds; 0 where none is."""
    try:
        return (site.state / APPROVAL_FILE).stat().st_mtime_ns
    except OSError:
        return 0


def kit_to_use(site: SiteConfig) -> SignedKit:
    """The approved kit.

    Raises:
        InputError: none was approved, or it is unsound; the fix is in the message.
    """
    kit = approved_kit(site)
    if kit is None:
        check_site(site, read_kit(site.kit), site.kit)  # where it is missing or unsound, that is the thing to say
        raise InputError(f"{site.kit}: nobody here has approved this kit yet; {_APPROVE}")
    return kit


def what_waits(site: SiteConfig) -> str:
    """One sentence on what a person has to do before the site takes part as it should; empty when all is well.

    The state folder is not this account's alone, no kit is approved, or another than the approved one has arrived.
    """
    try:
        if site.state.exists():
            check_private(site.state)
        kit = kit_to_use(site)
        arrived = read_kit(site.kit) if site.kit.exists() else kit
        check_site(site, arrived, site.kit)
    except InputError as error:
        return str(error)
    if arrived.digest == kit.digest:
        return ""
    return f"{site.kit}: differs from the kit that was approved, which stays in use; {_APPROVE}"


def check_site(site: SiteConfig, kit: SignedKit, source: Path) -> None:
    """Refuse another site's kit, which `source` held.

    Raises:
        InputError: with both names.
    """
    if kit.kit.site != site.name:
        raise InputError(
            f"{source}: is the kit of site {kit.kit.site}, but `name:` is {site.name}; correct `name:`, or ask the "
            "coordinator for this site's kit"
        )


def differences(old: SignedKit, new: SignedKit) -> list[tuple[str, str, str]]:
    """Name, old and new value of each setting of kit and study that differs."""
    before, after = dict(_settings(old)), dict(_settings(new))
    names = [*before, *(name for name in after if name not in before)]
    values = ((name, before.get(name, "nothing"), after.get(name, "nothing")) for name in names)
    return [(name, was, is_now) for name, was, is_now in values if was != is_now]


def _settings(kit: SignedKit) -> Iterator[tuple[str, str]]:
    yield from _flat("kit", kit.kit.model_dump(mode="json"))
    yield from _flat("study", kit.study.model_dump(mode="json"))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    else:
        yield name, str(value)


def study_of_kit(site: SiteConfig) -> StudyConfig | None:
    """The approved kit's study, or, before that, the arrived one's.

    None where there is no kit, or one that the check of the connection finds fault with.

    Raises:
        PrivateFolderError: this account may not read the approved kit.
    """
    try:
        return (approved_kit(site) or read_kit(site.kit)).study
    except PrivateFolderError:
        raise
    except InputError:
        return None
