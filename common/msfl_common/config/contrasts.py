"""Image contrasts: how BIDS names them, how DICOM series show them, what each is good for.

A contrast is a BIDS suffix, or entities and a suffix (`ce-gadolinium_T1w`); a study may ask for any of
`bids_suffixes`. The table here has those of which more is known. From it a site takes which files are of which, the
DICOM import what it looks for, preprocessing what it registers and which image lesions are outlined on, and the
catalogue of features whose signal it measures. To add one: its entry here (docs/how-to/add-a-contrast.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator

from msfl_common.config.bids_suffixes import SUFFIXES, entities_of

# Letters that names put before T1 or T2 without a gap, as in SAGT1 and eT2W; in "visit1" and "T12" there is no T1.
_PLANE = r"(?<![a-z0-9])(?:o?ax|o?sag|o?cor|tra|trans|ir|se|fs|[23]d|pd|[sdewv])?"
_T1 = re.compile(_PLANE + r"t1(?!\d)(?! ?(?:rho|map))|mp ?rage|\bmpr|bravo|spgr|\btfl|turbo ?flash|\bvibe")
_T1_FLAIR = re.compile(r"t1\w* (?:\w+ ){0,2}(?:flair|dark ?fluid|da fl|tirm)|(?:flair|dark ?fluid|tirm) (?:\w+ )?t1")
_FLAIR = re.compile(r"flair|dark ?fluid|\bda fl\b|fluid att|\btirm")
_T2 = re.compile(_PLANE + r"t2(?!\d)")
_PD = re.compile(_PLANE + r"pd(?:w|wi|t2\w*|fs)?(?![a-z0-9])|\bdp\b|proton|densi(?:te|ta|dad|ty)|dichte|\bdens\b")
_FLAIR_INVERSION_S, _FLAIR_ECHO_S = 1.5, 0.07
_T1_INVERSION_S, _T1_ECHO_S, _T1_REPETITION_S = 1.4, 0.02, 1.0
_T1_GRADIENT_ECHO_S = 0.015
_LONG_REPETITION_S = 2.0
_PD_ECHO_S = 0.045


@dataclass(frozen=True)
class Pulse:
    """What the scanner says of a sequence.

    Attributes:
        echo_s: echo time, seconds; 0 where the scanner does not say, as the next two.
        repetition_s: repetition time.
        inversion_s: inversion time.
        is_gradient_echo: whether echoes are made by gradients alone; None where the scanner does not say.
    """

    echo_s: float = 0.0
    repetition_s: float = 0.0
    inversion_s: float = 0.0
    is_gradient_echo: bool | None = None

    @property
    def is_known(self) -> bool:
        """Whether there are times to judge by."""
        return bool(self.echo_s and self.repetition_s)


@dataclass(frozen=True)
class SeriesRule:
    """How a DICOM series shows a contrast.

    Attributes:
        named: whether what people called the series (small letters, words apart) says so.
        shown: whether the times of the sequence alone say so; they are known.
        can_be: whether a series that is called so can be one, by its times; they are known.
        is_special: whether the name counts even where series of its kind are passed over as not structural.
    """

    named: Callable[[str], bool]
    shown: Callable[[Pulse], bool] = lambda _: False
    can_be: Callable[[Pulse], bool] = lambda _: True
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
        folder: where its files lie beside `anat`.
        is_quantity: whether its numbers mean something in every scanner, and stay as they are.
    """

    title: str
    suffix: str
    entities: Mapping[str, str] = field(default_factory=dict)
    series: SeriesRule | None = None
    anchor_rank: float = float("inf")
    shows_lesions: bool = False
    has_features: bool = False
    fluid: Literal["dark", "bright"] | None = None
    folder: str = "anat"
    is_quantity: bool = False

    def is_of(self, suffix: str, entities: Mapping[str, str]) -> bool:
        """Whether a file of this suffix and these entities shows it."""
        return suffix == self.suffix and all(entities.get(key) == label for key, label in self.entities.items())


CONTRASTS: dict[str, ContrastFacts] = {
    "T1w": ContrastFacts(
        "T1-weighted",
        "T1w",
        series=SeriesRule(
            lambda name: _T1.search(name) is not None,
            lambda pulse: (
                pulse.echo_s <= (_T1_GRADIENT_ECHO_S if pulse.is_gradient_echo else _T1_ECHO_S)
                and (0.3 <= pulse.inversion_s < _T1_INVERSION_S or pulse.repetition_s < _T1_REPETITION_S)
            ),
            lambda pulse: (
                pulse.inversion_s < _T1_INVERSION_S
                and (
                    pulse.echo_s <= _T1_GRADIENT_ECHO_S
                    if pulse.is_gradient_echo
                    else pulse.echo_s <= 2 * _T1_ECHO_S and (pulse.inversion_s >= 0.3 or pulse.repetition_s <= 1.5)
                )
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
            lambda name: _FLAIR.search(name) is not None and _T1_FLAIR.search(name) is None,
            lambda pulse: pulse.inversion_s >= _FLAIR_INVERSION_S and pulse.echo_s >= _FLAIR_ECHO_S,
            lambda pulse: (
                not pulse.is_gradient_echo
                and pulse.echo_s >= 0.05
                and (pulse.inversion_s >= 1.2 or (not pulse.inversion_s and pulse.repetition_s >= 4))
            ),
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
            lambda name: _T2.search(name) is not None and _FLAIR.search(name) is None,
            lambda pulse: (
                not pulse.is_gradient_echo
                and not pulse.inversion_s
                and pulse.repetition_s > _LONG_REPETITION_S
                and pulse.echo_s >= _FLAIR_ECHO_S
            ),
            lambda pulse: (
                not pulse.is_gradient_echo
                and not pulse.inversion_s
                and pulse.repetition_s >= 1.5
                and pulse.echo_s > _PD_ECHO_S
            ),
        ),
        anchor_rank=2,
        fluid="bright",
    ),
    "PDw": ContrastFacts(
        "proton-density-weighted",
        "PDw",
        series=SeriesRule(
            lambda name: _PD.search(name) is not None,
            lambda pulse: (
                pulse.is_gradient_echo is False
                and not pulse.inversion_s
                and pulse.repetition_s > _LONG_REPETITION_S
                and pulse.echo_s < _PD_ECHO_S
            ),
            lambda pulse: not pulse.inversion_s and pulse.repetition_s >= 1.5 and pulse.echo_s <= 0.05,
        ),
        anchor_rank=4,
    ),
}


_EARLIER = "earlier-"


def earlier(contrast: str) -> str:
    """The channel that a contrast of the visit before is in."""
    return f"{_EARLIER}{contrast}"


def later(channel: str) -> str:
    """The contrast that a channel shows, of whichever visit."""
    return channel.removeprefix(_EARLIER)


def is_earlier(channel: str) -> bool:
    """Whether a channel is of the visit before."""
    return channel.startswith(_EARLIER)


def facts_of(channel: str) -> ContrastFacts:
    """What is known of a contrast that a study names, of either visit.

    Raises:
        ValueError: it is no BIDS name; says which there are.
    """
    contrast = later(channel)
    return CONTRASTS[contrast] if contrast in CONTRASTS else _by_name(contrast)


@lru_cache(maxsize=256)
def _by_name(contrast: str) -> ContrastFacts:
    """What a BIDS name tells of a contrast without an entry; with entities, it is shown as its suffix is."""
    entities, suffix = entities_of(contrast)
    about = SUFFIXES[suffix]
    title = (
        f"{about.title} ({', '.join(f'{key} {label}' for key, label in entities.items())})" if entities else about.title
    )
    if suffix in CONTRASTS:
        known = CONTRASTS[suffix]
        rank = known.anchor_rank + 0.5  # after the plain one
        return replace(known, title=title, entities=entities, anchor_rank=rank, has_features=False)
    return ContrastFacts(
        title,
        suffix,
        entities,
        anchor_rank=about.anchor_rank,
        folder=about.folder,
        is_quantity=about.is_quantity,
    )


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


def named_contrasts(name: str, special: bool = False) -> set[str]:
    """The contrasts that what people called a DICOM series speaks of.

    Args:
        name: small letters, words apart by single spaces.
        special: ask those alone whose name counts whatever else it tells.
    """
    return {
        contrast
        for contrast, facts in CONTRASTS.items()
        if facts.series is not None and (facts.series.is_special or not special) and facts.series.named(name)
    }


def shown_contrast(pulse: Pulse) -> str | None:
    """The contrast that the times of a sequence alone say it is; None: none for certain."""
    rules = [(contrast, facts.series) for contrast, facts in CONTRASTS.items() if facts.series is not None]
    return next((contrast for contrast, rule in rules if pulse.is_known and rule.shown(pulse)), None)


def can_be(contrast: str, pulse: Pulse) -> bool:
    """Whether a series that is called so can be of a contrast, by the times of its sequence."""
    rule = facts_of(contrast).series
    return rule is not None and (not pulse.is_known or rule.can_be(pulse))


def in_words(contrasts: Iterable[str]) -> str:
    """A list for a sentence: `T1w, FLAIR or T2w`."""
    *first, last = contrasts
    return f"{', '.join(first)} or {last}" if first else last


def _known(channel: str) -> str:
    facts_of(channel)
    return channel


def _known_contrast(contrast: str) -> str:
    if is_earlier(contrast):
        raise ValueError(f"{contrast}: images of the visit before are those of the task new-lesions; leave them out")
    return _known(contrast)


Contrast = Annotated[str, AfterValidator(_known_contrast)]
Channel = Annotated[str, AfterValidator(_known)]
"""A contrast, or `earlier` of one: one of a case's images."""
