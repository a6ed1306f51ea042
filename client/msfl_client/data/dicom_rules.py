"""A site's own rules on its DICOM series, for `import-dicom --rules`: they go before what is found without them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from msfl_client.data.dicom_people import People
from msfl_client.data.dicom_series import Recognised, SeriesFacts
from msfl_client.data.dicom_words import plain
from msfl_common.config.base import Frozen, validate
from msfl_common.config.contrasts import CONTRASTS
from msfl_common.config.spelling import no_such
from msfl_common.system.reading import read_yaml


class SeriesOfSite(Frozen):
    """A rule on series whose names fit; without a name of the one or the other kind, any fits."""

    description: str | None = Field(
        None, description="SeriesDescription; `*` is any text; capitals, accents and marks between words do not matter"
    )
    protocol: str | None = Field(None, description="ProtocolName, in the same way")
    take_for: str = Field(description="what such a series is: a contrast, or `skip`")
    agent: bool = Field(False, description="whether a contrast agent was given")
    whole: bool = Field(
        False, description="whether no slice is missing, whatever the images' numbers and the scanner's count say"
    )

    @field_validator("take_for")
    @classmethod
    def _is_known(cls, take_for: str) -> str:
        if take_for not in (known := (*CONTRASTS, "skip")):
            raise ValueError(no_such("contrast", [take_for], known))
        return take_for

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if self.description is None and self.protocol is None:
            raise ValueError("a rule needs a description or a protocol")
        return self

    def fits(self, facts: SeriesFacts) -> bool:
        """Whether the rule is about a series."""
        pairs = ((self.description, facts.description), (self.protocol, facts.protocol))
        return all(_fits(pattern, text) for pattern, text in pairs if pattern is not None)


class ImportRules(Frozen):
    """The content of a rules file; the first rule that fits a series counts."""

    series: tuple[SeriesOfSite, ...] = Field((), description="rules on series, in order")
    people: People = Field(
        "by-identity",
        description="whose a study is: `by-identity`, by PatientID, birth date, sex and name; `by-patient-id`, "
        "whatever else differs; `by-study`, each study is a person of its own",
    )


def load_rules(path: Path | None) -> ImportRules:
    """Read a rules file; without one there are no rules.

    Raises:
        ConfigError: it is missing or not valid; one line per fault.
    """
    return ImportRules() if path is None else validate(ImportRules, read_yaml(path), str(path))


def by_rule(rules: Sequence[SeriesOfSite], facts: SeriesFacts) -> Recognised | None:
    """What the first rule that fits says of a series; None where none does."""
    for number, rule in enumerate(rules, 1):
        if rule.fits(facts):
            why = f"by rule {number} of the rules file"
            if rule.take_for == "skip":
                return Recognised("other", why)
            return Recognised("wanted", why, rule.take_for, rule.agent, rule.whole)
    return None


def _fits(pattern: str, text: str) -> bool:
    return fnmatchcase(plain(text), "*".join(plain(part) for part in pattern.split("*")))
