"""Example files that the package brings, for who has no copy of the repository: the same as in `site_configs/`.

To add one: its file in `example_files/`, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from msfl_common.config.spelling import no_such
from msfl_common.errors import InputError
from msfl_common.system.files import write_text


@dataclass(frozen=True)
class Example:
    """An example file.

    Attributes:
        source: the same file in `site_configs/`.
        writes: what it is called where it is written.
        what: what it is for, in words.
    """

    source: str
    writes: str
    what: str


EXAMPLES: dict[str, Example] = {
    "study": Example(
        "study.example.yaml", "study.yaml", "a study that outlines lesions; every setting, with its default"
    ),
    "lesions": Example(
        "lesions.example.yaml", "study.yaml", "a segmentation for real work, as nnU-Net would plan it; needs GPUs"
    ),
    "new-lesions": Example(
        "new-lesions.example.yaml", "study.yaml", "a study that outlines new lesions between two visits"
    ),
    "transfer": Example(
        "transfer.example.yaml",
        "study.yaml",
        "a segmentation that starts from a trained model",
    ),
    "progression": Example("progression.example.yaml", "study.yaml", "a study that predicts an outcome; every setting"),
    "five-visits": Example(
        "five-visits.example.yaml",
        "study.yaml",
        "a study of activity after yearly visits, by the models of Barulina et al. 2026",
    ),
    "regression": Example("regression.example.yaml", "study.yaml", "a study that predicts a number; every setting"),
    "own-inputs": Example(
        "own-inputs.example.yaml",
        "study.yaml",
        "a study of columns of its own, and of a quantity's means over regions of the brain",
    ),
    "evaluation": Example(
        "evaluation.example.yaml", "study.yaml", "a study that measures a trained model, and trains nothing"
    ),
    "demo": Example("demo/study.yaml", "study.yaml", "a study of minutes among three simulated sites of `make-cohort`"),
    "small-cohort": Example(
        "small-cohort.example.yaml", "study.yaml", "a small cohort in one place, for `pipelines`; with its four stages"
    ),
    "site": Example("site.example.yaml", "site.yaml", "a site's own file; every setting, with its default"),
}


def example_text(name: str) -> str:
    """The text of an example.

    Raises:
        InputError: there is none of that name.
    """
    if name not in EXAMPLES:
        raise InputError(no_such("example", [name], tuple(EXAMPLES)))
    return (files(__package__) / "example_files" / f"{name}.yaml").read_text(encoding="utf-8")


def study_template(name: str, study_file: Path | None) -> str:
    """The text of an example of a study, for who names no file of a study.

    Raises:
        InputError: there is no such study among the examples, or a file is named, too.
    """
    if study_file is not None:
        raise InputError("--template and --study: leave one out")
    studies = tuple(key for key, one in EXAMPLES.items() if one.writes == "study.yaml")
    if name not in studies:
        raise InputError(f"--template: {no_such('template', [name], studies)}")
    return example_text(name)


def write_example(name: str, path: Path | None) -> Path:
    """Write an example where nothing is yet; without a path, under its own name in this folder.

    Raises:
        InputError: there is none of that name, or something is there already.
    """
    text = example_text(name)
    target = path if path is not None else Path(EXAMPLES[name].writes)
    if target.exists():
        raise InputError(f"{target}: is there already; name another file with --output")
    try:
        write_text(target, text)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}; name another file with --output") from None
    return target
