"""What a study with differential privacy promises, said before anything runs."""

from __future__ import annotations

from msfl_common.config.study import StudyConfig


def say_privacy(study: StudyConfig) -> None:
    """A line on stderr with the epsilon that the whole study comes to, or a warning where that promises nothing."""
    if study.differential_privacy is None:
        return
    from msfl_common.privacy_accounting import privacy_lines
    from msfl_common.system.progress import console, warn

    for is_warning, text in privacy_lines(study):
        if is_warning:
            warn([f"differential privacy: {text}"])
        else:
            console.print(f"differential privacy: {text}", soft_wrap=True)
