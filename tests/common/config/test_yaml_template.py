"""Config files with comments: what is written loads again, and every key is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.config.yaml_template import commented_yaml

CONFIGS: list[BaseModel] = [
    StudyConfig(name="pilot", min_patients=7),
    StudyConfig(
        name="numbers",
        task="regression",
        regression={
            "outcome": {"endpoint": "edss", "unit": "points", "range": (0, 10)},
            "clinical": ("age", "edss"),
            "model": {"kind": "ridge"},
        },
    ),
    SiteConfig(
        name="no", data=(Path("a: b #c"), Path("/scans/größe")), state=Path("state"), policy=Policy(min_patients=9)
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_written_loads_again(config: BaseModel) -> None:
    text = commented_yaml(config, "one\ntwo")
    assert type(config).model_validate(yaml.safe_load(text)) == config
    assert text.startswith("# one\n# two\n\n")


@pytest.mark.parametrize("config", CONFIGS)
def test_every_key_is_explained(config: BaseModel) -> None:
    for line in commented_yaml(config, "top").splitlines():
        assert not line or line.startswith("#") or " # " in line, line


def test_a_key_stands_on_one_line_with_its_value_and_meaning() -> None:
    lines = commented_yaml(StudyConfig(name="pilot"), "top").splitlines()
    assert "  channels: [16, 32, 64, 128]    # feature maps per level, finest first" in lines
    assert "training:                        # how a site trains in one round" in lines
