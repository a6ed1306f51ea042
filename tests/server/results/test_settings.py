"""A study flattened."""

from __future__ import annotations

from msfl_common.config.study import StudyConfig
from msfl_server.results.settings import Setting, flat_settings


def test_every_setting_is_listed_once_with_its_meaning():
    settings = flat_settings(StudyConfig(name="demo"))
    names = [setting.name for setting in settings]
    assert len(set(names)) == len(names)
    assert settings[1] == Setting("name", "demo", "study name: letters, digits, dot, dash, underscore")
    assert ("training.augmentation.flip", "0.5", "mirror, along each of `flip_axes` by itself") in settings
    values = {setting.name: setting.value for setting in settings}
    assert values["training.augmentation.flip_axes"] == '["left-right"]'  # at its default, which is not stored
    assert (values["validation.mirroring"], values["rounds.weighting"]) == ("true", "cases")
    assert ("network.channels", "[16, 32, 64, 128]", "feature maps per level, finest first") in settings
    assert all(setting.meaning for setting in settings)
