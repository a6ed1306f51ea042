"""Where a simulated cohort goes: a folder that is either whole or not there, and how many it may hold."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KIND = "msfl-simulated-cohort"
SPACING_LIMITS_MM = (1.0, 4.0)
MOST_VISITS = 20
DERIVATIVES = frozenset({"lesions", "octants"})  # others were put there since, by `msfl-client predict` for one


def checked_counts(
    num_sites: int, cases_per_site: int | Sequence[int], num_nmosd: int, num_controls: int, most: int = 999
) -> list[int]:
    """Patients with MS of each site."""
    if num_sites < 1:
        raise ValueError(f"num_sites must be at least 1, found {num_sites}")
    counts = [cases_per_site] * num_sites if isinstance(cases_per_site, int) else list(cases_per_site)
    if len(counts) != num_sites:
        raise ValueError(f"cases_per_site holds {len(counts)} numbers for {num_sites} sites; give one, or one a site")
    if min(counts) < 1 or max(counts) > most:
        raise ValueError(f"cases_per_site must be between 1 and {most}, found {counts}")
    if min(num_nmosd, num_controls) < 0 or max(counts) + num_nmosd + num_controls > most:
        raise ValueError(f"a site may have up to {most} persons, found {max(counts)} + {num_nmosd} + {num_controls}")
    return counts


def groups_of(num_ms: int, num_nmosd: int, num_controls: int) -> list[str]:
    """The group of each of a site's cases, in their order."""
    return ["MS"] * num_ms + ["NMOSD"] * num_nmosd + ["HC"] * num_controls


def check_active(active: float | None) -> None:
    """Refuse a rate of activity that no log odds give."""
    if active is not None and not 0.01 <= active <= 0.95:
        raise ValueError(f"active must be between 0.01 and 0.95, found {active:g}")


def check_visits(num_visits: int) -> None:
    """Refuse a number of visits that no cohort has."""
    if not 2 <= num_visits <= MOST_VISITS:
        raise ValueError(f"num_visits must be between 2 and {MOST_VISITS}, found {num_visits}")


def check_replaceable(out: Path) -> None:
    """Refuse to write over anything but an empty folder or an earlier simulated cohort."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the cohort")
    if not any(out.iterdir()):
        return
    try:
        kind = json.loads((out / "cohort.json").read_text()).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != KIND:
        raise ValueError(f"{out} holds something other than a simulated cohort; give a new or empty folder")
    if added := sorted(path for path in out.glob("*/derivatives/*") if path.name not in DERIVATIVES):
        raise ValueError(
            f"{out} holds {added[0].relative_to(out)}, which is no part of a simulated cohort; move it away"
        )


@contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place on success and vanishes otherwise."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (out.parent / f".{out.name}.{state}" for state in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_numbers(seed: int, spacing_mm: float, num_workers: int | None) -> None:
    """Refuse a seed, spacing or number of processes that cannot be."""
    low, high = SPACING_LIMITS_MM
    if seed < 0:
        raise ValueError(f"seed must not be negative, found {seed}")
    if not low <= spacing_mm <= high:
        raise ValueError(f"spacing_mm must be between {low} and {high}, found {spacing_mm}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, found {num_workers}")
