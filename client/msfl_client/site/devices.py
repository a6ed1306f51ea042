"""What of its machine a site lends to studies: when, and for how long."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path

from filelock import FileLock

from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.system.files import private_folder, write_json

Clock = Callable[[], datetime]  # local time, as the clock on the wall shows it


def check_hours(hours: Sequence[str], now: datetime) -> None:
    """Give way to clinical use.

    Args:
        hours: windows such as "19:00-07:00", their end excluded; none at all stands for always.
        now: local time.

    Raises:
        RefusedError: with the code OUTSIDE_HOURS.
    """
    clock = now.strftime("%H:%M")
    if hours and not any(_holds(window, clock) for window in hours):
        raise RefusedError(Code.OUTSIDE_HOURS, f"it is {clock}, the site computes at {', '.join(hours)}")


def _holds(window: str, clock: str) -> bool:
    start, end = window.split("-")
    return start <= clock < end if start < end else clock >= start or clock < end


def device_hours(path: Path, day: date) -> float:
    """Hours of device time in the record of a day.

    Raises:
        InputError: the record cannot be read.
    """
    return _read_hours(path).get(day.isoformat(), 0.0)


def add_device_hours(path: Path, start: datetime, seconds: float, num_devices: int) -> None:
    """Add time in use to the record, each day its part of it.

    Args:
        path: the record, JSON: date to hours.
        start: local time at which the devices were taken.
        seconds: how long they were held.
        num_devices: how many were held.

    Raises:
        InputError: the record cannot be read, or its folder is not the site's alone.
    """
    private_folder(path.parent)
    with FileLock(path.with_suffix(".lock"), mode=0o600, fallback_to_soft=False):  # several studies may run at a site
        hours = _read_hours(path)
        end = start + timedelta(seconds=seconds)
        while start < end:
            midnight = datetime.combine(start.date() + timedelta(days=1), time(), start.tzinfo)
            day, part = start.date().isoformat(), min(end, midnight) - start
            hours[day] = hours.get(day, 0.0) + num_devices * part.total_seconds() / 3600
            start = midnight
        write_json(path, hours)


def _read_hours(path: Path) -> dict[str, float]:
    try:
        return {str(day): float(hours) for day, hours in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"{path}: expected a date and its hours per line; mend it, or remove it to start anew"
        ) from None
