"""The one table of image contrasts: how BIDS names them, how DICOM series show them, what each is good for.

A contrast is a BIDS suffix, or entities and a suffix (`ce-gadolinium_T1w`). From the table a study takes which
contrasts it may ask for, a site which files are of which, the DICOM import what it looks for, preprocessing what it
registers and which image lesions are outlined on, and the catalogue of features whose signal it measures. To add one:
its entry here (docs/how-to/add-a-contrast.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator

_T1 = re.compile(r"t1|mp.?rage|bravo|fspgr|spgr|\btfl|vibe|\bir.?fse.?t1")
_FLAIR = re.compile(r"flair|dark.?fluid|tirm")
_T2 = re.compile(r"t2")
_PD = re.compile(r"\bpd|proton|dens")
_PD_ECHO_S = 0.04  # the earlier echo of a dual-echo series
_FLAIR_INVERSION_S, _FLAIR_ECHO_S = 1.5, 0.07
_T1_INVERSION_S, _T1_ECHO_S, _T1_REPETITION_S = 1.4, 0.02, 1.0


@dataclass(frozen=True)
class Times:
    """The times of a sequence, seconds; 0 where the scanner does not say."""

    echo_s: float
    repetition_s: float
    inversion_s: float


@dataclass(frozen=True)
class SeriesRule:
    """How a DICOM series shows a contrast; the first contrast of the table that fits is taken.

    Attributes:
        named: whether what people called the series (small letters) says so, given its times.
        timed: whether the times do, where names say nothing; echo and repetition are known.
        is_special: whether the name counts even where series of its kind are passed over as not structural.
    """

    named: Callable[[str, Times], bool]
    timed: Callable[[Times], bool] = lambda _: False
    is_special: bool = False


@dataclass(frozen=True)
class ContrastFacts:
    """What MSFL needs to know of a contrast.

    Attributes:
        title: in plain words.
        suffix: BIDS suffix of its files.
        entities: `key-label` pairs that its files have, besides those of any file.
        series: how DICOM series show it; None: the import does not look for it.
        anchor_rank: where several are there, brain and template are matched on the one of the lowest; those without one
            come last.
        shows_lesions: whether lesions are outlined on it where the study uses it.
        has_features: whether its signal and texture are among the measured features.
        fluid: how bright fluid is against white matter; None where that differs. It tells an inverted image.
    """

    title: str
    suffix: str
    entities: Mapping[str, str] = field(default_factory=dict)
    series: SeriesRule | None = None
    anchor_rank: float = float("inf")
    shows_lesions: bool = False
    has_features: bool = False
    fluid: Literal["dark", "bright"] | None = None

    def is_of(self, suffix: str, entities: Mapping[str, str]) -> bool:
        """Whether a file of this suffix and these entities shows it."""
        return suffix == self.suffix and all(entities.get(key) == label for key, label in self.entities.items())


CONTRASTS: dict[str, ContrastFacts] = {
    "T1w": ContrastFacts(
        "T1-weighted",
        "T1w",
        # Before FLAIR: a T1 FLAIR is T1-weighted.
        series=SeriesRule(
            lambda name, _: _T1.search(name) is not None,
            lambda times: (
                times.echo_s <= _T1_ECHO_S
                and (0 < times.inversion_s < _T1_INVERSION_S or times.repetition_s < _T1_REPETITION_S)
            ),
        ),
        anchor_rank=1,
        has_features=True,
        fluid="dark",
    ),
    "FLAIR": ContrastFacts(
        "T2-weighted with fluid suppressed",
        "FLAIR",
        series=SeriesRule(
            lambda name, _: _FLAIR.search(name) is not None,
            lambda times: times.inversion_s >= _FLAIR_INVERSION_S and times.echo_s >= _FLAIR_ECHO_S,
        ),
        anchor_rank=3,
        shows_lesions=True,
        has_features=True,
        fluid="dark",
    ),
    "T2w": ContrastFacts(
        "T2-weighted",
        "T2w",
        series=SeriesRule(
            lambda name, times: (
                _T2.search(name) is not None and not (_PD.search(name) is not None and times.echo_s < _PD_ECHO_S)
            ),
            lambda times: (
                not times.inversion_s and times.repetition_s > 2 * _T1_REPETITION_S and times.echo_s >= _FLAIR_ECHO_S
            ),
        ),
        anchor_rank=2,
        fluid="bright",
    ),
    "PDw": ContrastFacts(
        "proton-density-weighted",
        "PDw",
        series=SeriesRule(
            lambda name, _: _PD.search(name) is not None,
            lambda times: not times.inversion_s and times.repetition_s > 2 * _T1_REPETITION_S,
        ),
        anchor_rank=4,
    ),
}


def facts_of(contrast: str) -> ContrastFacts:
    """What is known of a contrast that a study names."""
    return CONTRASTS[contrast]


def contrast_of(suffix: str, entities: Mapping[str, str], asked: Iterable[str]) -> str | None:
    """Which of the contrasts that are asked for a file shows: that which says most of its name; None: none of them."""
    fitting = [contrast for contrast in asked if facts_of(contrast).is_of(suffix, entities)]
    return max(fitting, key=lambda contrast: len(facts_of(contrast).entities), default=None)


def anchor_of(contrasts: Iterable[str]) -> str:
    """The contrast that brain extraction and the template know best."""
    return min(contrasts, key=lambda contrast: facts_of(contrast).anchor_rank)


def outlined_on(contrasts: Iterable[str]) -> str:
    """The contrast on whose grid lesions are outlined: one that shows them, else the first."""
    ordered = list(contrasts)
    return next((contrast for contrast in ordered if facts_of(contrast).shows_lesions), ordered[0])


def contrast_of_series(name: str, times: Times, is_structural: bool) -> str | None:
    """Which contrast a DICOM series shows, by what people called it; where that says nothing, by its times.

    Args:
        name: small letters.
        times: of the sequence.
        is_structural: whether nothing in the name tells of another kind of series.
    """
    rules = [(contrast, facts.series) for contrast, facts in CONTRASTS.items() if facts.series is not None]
    special = [(contrast, rule) for contrast, rule in rules if rule.is_special]
    for contrast, rule in special + rules if is_structural else special:
        if rule.named(name, times):
            return contrast
    if not (is_structural and times.echo_s and times.repetition_s):
        return None
    return next((contrast for contrast, rule in rules if rule.timed(times)), None)


def in_words(contrasts: Iterable[str]) -> str:
    """A list for a sentence: `T1w, FLAIR or T2w`."""
    *first, last = contrasts
    return f"{', '.join(first)} or {last}" if first else last


def _known(contrast: str) -> str:
    if contrast not in CONTRASTS:
        raise ValueError(f"no such contrast; there are {', '.join(CONTRASTS)}")
    return contrast


Contrast = Annotated[str, AfterValidator(_known)]
