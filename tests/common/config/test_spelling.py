"""Names and paths in settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from msfl_common.config.base import validate
from msfl_common.config.site import SiteConfig
from msfl_common.config.spelling import HomePath, no_such
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError

PROGRESSION = {
    "name": "s",
    "task": "classification",
    "classification": {"outcome": {"endpoint": "edss-worsening"}, "model": {"kind": "logistic"}},
}


def test_a_wrong_name_brings_the_nearest() -> None:
    assert no_such("colour", ["gren"], ["red", "green"]) == (
        "no such colour: gren; did you mean green? There are red, green"
    )
    assert no_such("colour", ["GREEN"], ["red", "green"]).startswith("no such colour: GREEN; did you mean green?")
    many = [f"n{number:02d}" for number in range(40)]
    assert no_such("thing", ["zzz"], many, "listed there") == "no such thing: zzz; there are 40, listed there"


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        ((), {"name": "my study!"}, "name: found 'my study!'; expected letters, digits, dots"),
        ((), {"name": "a" * 65}, "at most 64"),
        ((), {"name": "a\n"}, "name: found"),
        (("classification",), {"features": ["age"]}, "age: no feature of images; name it under `clinical`"),
        (
            ("classification",),
            {"features": ["brain_volum_ml"]},
            "no such feature: brain_volum_ml; did you mean brain_volume_ml",
        ),
        (("classification", "outcome"), {"classes": [0, 1]}, 'quote them, ["0", "1"]'),
        (("classification", "outcome"), {"classes": [False, True]}, "quote each"),
        (("classification", "outcome"), {"endpoint": None, "column": "my column"}, "expected letters, digits"),
        (("classification",), {"model": {"kind": "knn", "penalty": "l2"}}, "classification.model: k-NN keeps"),
    ],
)
def test_a_wrong_setting_is_told_in_words_and_one_line(
    section: tuple[str, ...], change: dict[str, object], expected: str
) -> None:
    content: dict[str, object] = {**PROGRESSION}
    inner = content
    for key in section:
        inner[key] = {**inner[key]}  # type: ignore[dict-item]
        inner = inner[key]  # type: ignore[assignment]
    inner.update(change)
    with pytest.raises(ConfigError) as refused:
        validate(StudyConfig, content, "study.yaml")
    (line,) = refused.value.faults
    assert expected in line
    assert "^[" not in line


def test_hours_are_told_in_words() -> None:
    with pytest.raises(ConfigError, match='expected a window such as "19:00-07:00"'):
        validate(SiteConfig, {"name": "a", "data": "x", "state": "y", "hours": "7pm-7am"}, "site.yaml")


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    site = validate(SiteConfig, {"name": "a", "data": "~/bids", "state": "~/state"}, "site.yaml")
    assert (site.data, site.state) == ((tmp_path / "bids",), tmp_path / "state")
    assert TypeAdapter(HomePath).validate_python("a/~/b") == Path("a/~/b")
    with pytest.raises(ConfigError, match="state: found '~nobody-there/x'; no such account: ~nobody-there"):
        validate(SiteConfig, {"name": "a", "data": "x", "state": "~nobody-there/x"}, "site.yaml")
