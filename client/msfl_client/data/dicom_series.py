"""Which contrast a DICOM series shows: by what the scanner says of the image first, by what people called it after.

Where the two do not agree, or neither is enough, the series is a question for a person, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msfl_client.data.dicom_words import other_kind, plain, says_agent, says_both_parts, says_head, says_localiser
from msfl_common.config.contrasts import Contrast, Pulse, can_be, in_words, named_contrasts, shown_contrast

_MIN_SLICES = 10
_MIN_COVERAGE_MM = 100.0  # of a head; a slab of the spine, the orbits or the pituitary is thinner
_STIR_S = (0.08, 0.3)
_NO_AGENT = {"", "no", "none", "n", "nil", "na", "without", "0", "false", "nein", "ohne", "kein", "non", "sans",
             "aucun", "senza", "nessuno", "sin", "ninguno", "zonder", "geen", "nee", "no contrast",
             "without contrast", "no agent", "unknown", "0 ml", "not applicable"}  # fmt: skip
_HEADS = {"HEAD", "BRAIN", "SKULL", "NEURO", "CRANE", "KOPF", "CEREBRO", "CRANEO", "CRANIO", "HOOFD", "WHOLEBRAIN"}
# What the third and later values of ImageType tell of an image that no scanner measured as it is.
_DERIVED = {
    "derived": {"MPR", "REFORMATTED", "SUBTRACTION", "PROJECTION IMAGE", "MIP", "MNIP", "MIN_IP", "MAX_IP", "CSA MPR",
                "SUBTRACT", "CURVED", "COMP_SP", "CSA RESAMPLED", "MEAN"},
    "of phase": {"PHASE", "P", "PHASE MAP", "REAL", "R", "IMAGINARY", "I", "VELOCITY", "B0", "B1", "FIELD_MAP"},
    "diffusion": {"ADC", "DIFFUSION", "TRACEW", "TRACE", "FA", "DIFFUSION_ANISO", "TENSOR", "EADC", "ISOTROPIC"},
    "a map": {"T1 MAP", "T2 MAP", "T1_MAP", "T2_MAP", "T2_STAR_MAP", "R2_STAR", "QMAP",
              "MAP", "PERFUSION", "CBF", "CBV", "MTT", "TTP", "TMAX", "RCBV", "ASL", "FMRI", "TTEST", "MOSAIC"},
    "one part of a Dixon series": {"FAT", "OUT_PHASE", "OPP_PHASE", "FAT_FRACTION", "FF", "F", "OP", "OPPOSED_PHASE"},
    "synthetic": {"SYNTHETIC", "SYMRI"},
}  # fmt: skip

Status = Literal["wanted", "other", "unclear"]


@dataclass(frozen=True)
class SeriesFacts:
    """What a series' DICOM files say of it.

    Attributes:
        description: SeriesDescription; then ProtocolName and StudyDescription.
        modality: MR, CT.
        sequence: what the scanner calls its pulse sequence.
        body_part: BodyPartExamined.
        image_type: the values of ImageType.
        scanning: the values of ScanningSequence, such as SE, GR, IR, EP.
        variant: the values of SequenceVariant, such as SP, MTC.
        pulse: the times.
        agent: ContrastBolusAgent, with its volume where that is 0.
        is_before_agent: whether the bolus started after the images.
        is_angiogram: AngioFlag.
        has_diffusion: whether a b-value above 0 is given.
        num_slices: slices.
        coverage_mm: from the first to the last slice; 0: not known.
    """

    description: str = ""
    protocol: str = ""
    study: str = ""
    modality: str = "MR"
    sequence: str = ""
    body_part: str = ""
    image_type: frozenset[str] = field(default_factory=frozenset)
    scanning: frozenset[str] = field(default_factory=frozenset)
    variant: frozenset[str] = field(default_factory=frozenset)
    pulse: Pulse = field(default_factory=Pulse)
    agent: str = ""
    is_before_agent: bool = False
    is_angiogram: bool = False
    has_diffusion: bool = False
    num_slices: int = 0
    coverage_mm: float = 0.0


@dataclass(frozen=True)
class Recognised:
    """What a series was taken for.

    Attributes:
        status: "wanted", "other" (certainly not), "unclear" (a person is to say).
        why: in words.
        contrast: what it shows, or may show.
        enhanced: whether a contrast agent was given.
        is_whole: whether a person says that no slice is missing.
    """

    status: Status
    why: str
    contrast: Contrast | None = None
    enhanced: bool = False
    is_whole: bool = False


def recognise_series(facts: SeriesFacts) -> Recognised:
    """The contrast of a series, or why it is passed over or in question."""
    description, protocol = plain(facts.description), plain(facts.protocol)
    special = named_contrasts(description or protocol, special=True)
    if not special and (why := _not_structural(facts, description, protocol)):
        return Recognised("other", why)
    if facts.num_slices < _MIN_SLICES:
        return Recognised("other", f"with fewer than {_MIN_SLICES} slices")
    if 0 < facts.coverage_mm < _MIN_COVERAGE_MM:
        return Recognised("other", f"covers {facts.coverage_mm:.0f} mm, less than a head")
    contrast, why = _contrast_of(special, facts.pulse, description, protocol)
    part = _part_of_body(facts, description, protocol, contrast)
    if part.status != "wanted":
        return Recognised(part.status, part.why, contrast)
    if contrast is None:
        return Recognised("unclear", why)
    enhanced, doubt = _has_agent(facts, description, protocol, contrast)
    if doubt:
        return Recognised("unclear", doubt, contrast)
    return Recognised("wanted", why, contrast, enhanced)


def names_agent(text: str) -> bool:
    """Whether what stands as ContrastBolusAgent names one."""
    return " ".join(text.lower().replace("/", "").split()) not in _NO_AGENT and says_agent(plain(text)) is not False


def _not_structural(facts: SeriesFacts, description: str, protocol: str) -> str | None:
    """Why a series is certainly none that shows the head's structure; None: it may be one."""
    if facts.modality != "MR":
        return f"of modality {facts.modality or 'unknown'}, not MR"
    kinds = {kind.strip().upper() for kind in facts.image_type}
    if "LOCALIZER" in kinds or says_localiser(description or protocol):
        return "localiser"
    for why, words in _DERIVED.items():
        if found := kinds & words:
            return f"{why} (ImageType {' '.join(sorted(found))})"
    if facts.has_diffusion:
        return "diffusion (its b-value)"
    if facts.is_angiogram:
        return "angiography (AngioFlag)"
    if "EP" in facts.scanning or plain(facts.sequence).startswith(("ep b", "ep2d", "epfid", "epse", "epi")):
        return "echo-planar (ScanningSequence)"
    if (kind := other_kind(description)) or (not named_contrasts(description) and (kind := other_kind(protocol))):
        return kind
    if "DERIVED" in kinds and "mpr" in description.split():
        return "derived (ImageType, and its name)"
    if not facts.pulse.is_gradient_echo and _STIR_S[0] <= facts.pulse.inversion_s <= _STIR_S[1]:
        return f"STIR (inversion time {1000 * facts.pulse.inversion_s:.0f} ms)"
    return None


def _contrast_of(special: set[str], pulse: Pulse, description: str, protocol: str) -> tuple[Contrast | None, str]:
    """The contrast, and why; None where a person is to say."""
    if special:
        return min(special), "by its name"
    shown = shown_contrast(pulse)
    named, where = named_contrasts(description), "its description"
    if not named:
        named, where = named_contrasts(protocol), "its protocol's name"
        if len(named) > 1:  # a protocol of several series
            named = named & {shown}
    fitting = {contrast for contrast in named if can_be(contrast, pulse)}
    if shown in named:
        return shown, f"by its times and {where}"
    if len(named) == 1 and fitting and (shown is None or not pulse.is_known):
        return min(fitting), f"by {where}" + (", which its times allow" if pulse.is_known else "; no times are given")
    times = f"TE {1000 * pulse.echo_s:.0f}, TR {1000 * pulse.repetition_s:.0f}, TI {1000 * pulse.inversion_s:.0f} ms"
    if named:
        called = f"called {in_words(sorted(named))}"
        why = f"its times are of {shown}" if shown else "its times fit none" if not fitting else "its times fit several"
        return None, f"{called}, but {why} ({times})" if pulse.is_known else f"{called}, and no times are given"
    if shown is None:
        return None, f"its name says no contrast, and its times ({times}) none for certain"
    if pulse.is_gradient_echo and not pulse.inversion_s:
        return None, f"its name says no contrast; its times are of {shown} or of an angiogram ({times})"
    return shown, "by its times; its name says no contrast"


def _part_of_body(facts: SeriesFacts, description: str, protocol: str, contrast: str | None) -> Recognised:
    """Whether it is a head: "wanted", "other" or "unclear"."""
    of_series = says_head([description])
    if of_series is not None:
        return (
            _head("the description") if of_series else Recognised("other", "of another part of the body, by its name")
        )
    if says_both_parts(description):
        return Recognised("unclear", "its description names the head and another part of the body")
    body = facts.body_part.strip().upper()
    of_tag = None if not body else body in _HEADS or bool(says_head([plain(body)]))
    of_names = [says_head([text]) for text in (protocol, plain(facts.study))]
    of_name = next((found for found in of_names if found is not None), None)
    if of_tag is None and of_name is None:
        return _head("nothing that says otherwise")
    if of_tag is not None and of_name is not None and of_tag != of_name:
        return Recognised("unclear", f"BodyPartExamined {body} and the name of its protocol or study do not agree")
    if of_tag or of_name:
        return _head("BodyPartExamined" if of_tag else "its protocol or study")
    if contrast == "FLAIR":
        return Recognised("unclear", "a FLAIR that is marked as of another part of the body")
    return Recognised(
        "other", f"of another part of the body, by {f'BodyPartExamined {body}' if body else 'its protocol'}"
    )


def _head(by: str) -> Recognised:
    return Recognised("wanted", f"a head by {by}")


def _has_agent(facts: SeriesFacts, description: str, protocol: str, contrast: str) -> tuple[bool, str | None]:
    """Whether a contrast agent was given, and what is in doubt about it.

    A protocol may be the whole examination's, with series before and after the agent.
    """
    said, in_protocol = says_agent(description), says_agent(protocol)
    in_tag = names_agent(facts.agent) and not facts.is_before_agent
    if said == "both":
        return False, "its name speaks of with and without a contrast agent"
    if in_tag and False in (said, in_protocol) and said is not True:
        return False, "its name says without a contrast agent, ContrastBolusAgent says with one"
    if said is None and in_protocol and not in_tag and contrast == "T1w":
        return False, "its protocol speaks of a contrast agent, its description and ContrastBolusAgent do not"
    return in_tag or bool(said), None
