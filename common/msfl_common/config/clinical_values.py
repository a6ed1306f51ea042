"""Clinical values that models see: those that every study may name, and how a study declares its own.

A value is a column of the sites' tables. What may stand in its cells, and what the model sees of them, follows from
its kind: a number as it is; an ordered level by its place, from 0; yes as 1 and no as 0. A category has an input for
each level but the first, 1 where it is that level: with one for the first, too, they would always add up to 1, and no
model that is solved exactly could tell them from its intercept.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from msfl_common.config.feature_catalogue import KNOWN_FEATURES
from msfl_common.config.spelling import spelled
from msfl_common.feature_models.settings import Frozen

MISSING = frozenset({"", "n/a", "na", "nan", "none", "unknown"})
"""What stands in a cell, in small letters, whose value is not known."""

YES_NO: Mapping[str, float] = MappingProxyType({"0": 0.0, "no": 0.0, "false": 0.0, "1": 1.0, "yes": 1.0, "true": 1.0})

# Columns that say who, when and where, or that outcomes are computed from.
TAKEN = frozenset(
    {
        *("participant_id", "session_id", "site", "scanner", "dataset"),
        *("date", "acq_time", "days", "days_from_baseline", "years", "years_from_baseline"),
        *("new_lesions", "enlarging_lesions"),
    }
)

Unit = Annotated[str, spelled(r"[A-Za-z%][A-Za-z0-9%/ ^-]{0,31}", "letters, digits, %, /, ^, - and spaces, at most 32")]
Bound = Annotated[float, Field(ge=-1e9, le=1e9)]
ValueName = Annotated[
    str, spelled(r"[a-z][a-z0-9_]{0,39}", "small letters, digits and underscores, at most 40, the first a letter")
]
Level = Annotated[
    str,
    spelled(
        r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}",
        "letters, digits, dots, dashes, underscores and plus signs, at most 32, the first a letter or a digit",
    ),
]


class _Value(Frozen):
    """What all kinds share."""

    name: ValueName = Field(description="its column in the sites' tables, where capitals are small letters")
    title: str = Field(
        "",
        max_length=60,
        pattern=r"^[^\x00-\x1f<>&]*$",
        description="what people call it; empty: its name",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the model sees of it, by name."""
        return (self.name,)

    def seen(self, value: float) -> dict[str, float]:
        """What the model sees of a value that was read."""
        return {self.name: value}

    @property
    def words(self) -> Mapping[str, float]:
        """What may stand in a cell, in small letters, and what it is read as; empty of a number."""
        return {}

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest that an input of it can be."""
        return 0.0, 1.0

    @property
    def is_two_valued(self) -> bool:
        """Whether each of its inputs is at either bound, always."""
        return True

    @property
    def in_words(self) -> str:
        """What it can be, for a line of text."""
        return ", ".join(self.words)


class NumberValue(_Value):
    """A number, such as an FA value or points of a test."""

    kind: Literal["number"] = Field("number", description="what it is")
    unit: Unit = Field(description="unit of the number, such as points, years or pg/ml")
    range: tuple[Bound, Bound] = Field(
        description="lowest and highest number possible; a patient with another is left out by name. From what is "
        "known of it, never from the patients at hand: noise is drawn for it (`differential_privacy`)"
    )
    step: float | None = Field(None, gt=0, description="numbers come in such steps, 1: whole ones; null: any")

    @property
    def bounds(self) -> tuple[float, float]:
        """See `_Value`."""
        return self.range

    @property
    def is_two_valued(self) -> bool:
        """See `_Value`."""
        return False

    @property
    def in_words(self) -> str:
        """See `_Value`."""
        low, high = self.range
        steps = {None: "", 1.0: ", whole"}.get(self.step, f" in steps of {self.step}")
        return f"a number from {low:g} to {high:g}{steps}"

    @model_validator(mode="after")
    def _rises(self) -> Self:
        low, high = self.range
        if not low < high:
            raise ValueError(f"range: expected the lowest number and then a higher one, found {low:g} and {high:g}")
        if self.step is not None and self.step > (high - low) * (1 + 1e-9):
            raise ValueError(f"step: expected at most the range's width, {high - low:g}, found {self.step:g}")
        if self.step is not None and max(abs(low), abs(high)) > _MOST_STEPS * self.step:
            raise ValueError(f"step: expected at least {max(abs(low), abs(high)) / _MOST_STEPS:g}, found {self.step:g}")
        return self


class _Levels(_Value):
    """A value of named levels."""

    levels: tuple[Level, ...] = Field(
        min_length=2, max_length=12, description="what stands in the tables, capitals or not, each once"
    )

    @property
    def words(self) -> Mapping[str, float]:
        """See `_Value`."""
        return {level.lower(): float(place) for place, level in enumerate(self.levels)}

    @field_validator("levels", mode="before")
    @classmethod
    def _levels_are_texts(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(one, bool | int | float) for one in value):
            quoted = ", ".join(f'"{one}"' for one in value)
            raise ValueError(f"expected texts; numbers, yes, no, on and off are none unquoted: quote each, [{quoted}]")
        return value

    @field_validator("levels")
    @classmethod
    def _levels_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({level.lower() for level in value}) != len(value):
            raise ValueError("each level may be named once; capitals are small letters in the tables")
        if missing := [level for level in value if level.lower() in MISSING]:
            raise ValueError(f"{missing[0]}: stands for a value that is not known; call the level otherwise")
        return value


class OrderedValue(_Levels):
    """One of several levels that rise, such as mild, moderate, severe: 0, 1, 2."""

    kind: Literal["ordered"] = Field("ordered", description="what it is")

    @property
    def bounds(self) -> tuple[float, float]:
        """See `_Value`."""
        return 0.0, float(len(self.levels) - 1)

    @property
    def is_two_valued(self) -> bool:
        """See `_Value`."""
        return len(self.levels) == 2


class YesNoValue(_Value):
    """Yes or no: 1 or 0."""

    kind: Literal["yes-no"] = Field("yes-no", description="what it is")

    @property
    def words(self) -> Mapping[str, float]:
        """See `_Value`."""
        return YES_NO


class CategoryValue(_Levels):
    """One of several levels without an order, such as treatments; the first is the one that others are held against."""

    kind: Literal["category"] = Field("category", description="what it is")

    @property
    def inputs(self) -> tuple[str, ...]:
        """See `_Value`; one a level, but for the first."""
        return tuple(f"{self.name}_{level}" for level in self.levels[1:])

    def seen(self, value: float) -> dict[str, float]:
        """See `_Value`."""
        return {name: float(value == place) for place, name in enumerate(self.inputs, start=1)}


ClinicalValue = NumberValue | OrderedValue | YesNoValue | CategoryValue
DeclaredValue = Annotated[ClinicalValue, Field(discriminator="kind")]


def _number(name: str, title: str, unit: str, high: float, step: float | None = None) -> NumberValue:
    return NumberValue(name=name, title=title, unit=unit, range=(0.0, high), step=step)


# Highest of each functional system, whole numbers from 0 (Kurtzke, Neurology 1983; Neurostatus-EDSS).
_MOST_STEPS = 1e9  # of which a number of the tables still tells one from the next
_FUNCTIONAL_SYSTEMS = (
    ("fs_visual", 6),
    ("fs_brainstem", 5),
    ("fs_pyramidal", 6),
    ("fs_cerebellar", 5),
    ("fs_sensory", 6),
    ("fs_bowel_bladder", 6),
    ("fs_cerebral", 5),
    ("fs_ambulation", 12),
)
_EVERYWHERE: tuple[ClinicalValue, ...] = (
    _number("age", "Age", "year", 120),
    OrderedValue(name="sex", title="Sex", levels=("female", "male")),
    _number("disease_duration", "Disease duration", "year", 120),
    _number("edss", "EDSS", "point", 10, 0.5),
    _number("relapses_prior_year", "Relapses in the year before", "relapse", 50, 1),
    YesNoValue(name="treated", title="Treated"),
    *(_number(name, "", "point", highest, 1) for name, highest in _FUNCTIONAL_SYSTEMS),
)
CLINICAL_VALUES: Mapping[str, ClinicalValue] = MappingProxyType({one.name: one for one in _EVERYWHERE})
"""Those that every study may name, declared by nobody."""


def check_declared(declared: tuple[ClinicalValue, ...]) -> None:
    """Refuse names that a study cannot give to a value of its own.

    Raises:
        ValueError: names the value.
    """
    names = [one.name for one in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: each value may be declared once")
    for one in declared:
        if one.name in CLINICAL_VALUES:
            raise ValueError(f"{one.name}: is known, {CLINICAL_VALUES[one.name].in_words}; leave the declaration out")
        if one.name in TAKEN or any(name in KNOWN_FEATURES for name in (one.name, *one.inputs)):
            raise ValueError(f"{one.name}: has a meaning of its own in tables; name the value otherwise")


def described(one: ClinicalValue) -> str:
    """A value for a line of text: its name, and what it can be where a study declares it."""
    unit = f", {one.unit}" if isinstance(one, NumberValue) else ""
    return one.name if one.name in CLINICAL_VALUES else f"{one.name} ({one.in_words}{unit})"
