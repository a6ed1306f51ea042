"""What commands share that put a trained model to use: the folder that is read, and the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msfl_common.errors import InputError, RefusedError

if TYPE_CHECKING:
    from msfl_common.config.site import SiteConfig


def source_of(site: SiteConfig | None, asked: Path | None, of_file: str = "") -> Path:
    """The folder that a model is put to use on: the one that was asked for, else the site's only one.

    Args:
        site: at which it is, if at one.
        asked: with --input.
        of_file: what to do where that is a file, for people.

    Raises:
        InputError: it is no folder; or none was asked for, and the site has several, or there is no site.
    """
    if asked is not None:
        if not asked.is_dir():
            what = f"a file, not a folder{of_file}" if asked.exists() else "no such folder"
            raise InputError(f"--input {asked}: {what}")
        return asked
    if site is None:
        raise InputError("expected --input with a BIDS folder, or SITE.yaml, whose data it then is")
    if len(site.data) > 1:
        raise InputError(f"site {site.name} has {len(site.data)} BIDS folders; name one with --input")
    return site.data[0]


def check_device(setting: str, *names: str) -> None:
    """See that devices are there.

    Raises:
        InputError: one is not, or nobody knows its name; names the setting.
    """
    from msfl_common.config.site import known_device
    from msfl_common.system.loading import held_interrupts

    with held_interrupts():
        from msfl_common.system.devices import pick_devices

    try:
        pick_devices([known_device(name) for name in names])
    except RefusedError as error:
        raise InputError(f"{setting} {error.why}; `auto` takes what there is") from None
    except ValueError as error:
        raise InputError(f"{setting} {' '.join(names)}: {error}") from None


def lend_memory(site: SiteConfig) -> None:
    """Take no more of the device's memory than the site lends.

    Raises:
        InputError: its device is not there.
    """
    from msfl_common.system.devices import cap_memory, pick_device

    check_device(f"site {site.name}: device:", *([site.device] if isinstance(site.device, str) else site.device))
    cap_memory(pick_device(site.device), site.gpu_memory_fraction)
