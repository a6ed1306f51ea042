"""A case of images that a person names one by one, outside of any BIDS folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msfl_client.data.bids import Case, enhanced_note
from msfl_client.data.bids_names import ImageName, has_agent, is_nifti, is_subject, parse_image_name, sidecar_of
from msfl_client.data.bids_near import how_to_convert
from msfl_client.data.chosen import Chosen
from msfl_client.data.findings import Finding
from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.contrasts import CONTRASTS, Channel, facts_of, is_earlier, outlined_on
from msfl_common.errors import InputError

_SUFFIXES = {*SUFFIXES, *(facts.suffix for facts in CONTRASTS.values())}


def images_of(words: Sequence[str], needed: Sequence[Channel]) -> dict[Channel, Path]:
    """Images as a person names them: `FLAIR=scan.nii.gz`, one of each contrast that a model sees.

    Raises:
        InputError: one is missing, too many, named twice, not there, or no NIfTI file or another contrast by its name.
    """
    images: dict[Channel, Path] = {}
    form = " ".join(f"--image {contrast}=FILE" for contrast in needed)
    for word in words:
        contrast, equals, name = word.partition("=")
        if not equals or not name:
            raise InputError(f"--image {word}: expected a contrast and its file: {form}")
        if contrast not in needed:
            try:
                facts_of(contrast)
            except ValueError as error:
                raise InputError(f"--image {word}: {error}") from None
            raise InputError(
                f"--image {word}: the model does not see {contrast}, but {', '.join(needed)}; leave it out"
            )
        path = Path(name).expanduser()
        if contrast in images:
            raise InputError(f"--image {word}: {contrast} is named twice, also as {images[contrast]}; leave one out")
        if fault := _file_fault(path):
            raise InputError(f"--image {word}: {fault}")
        if (named := parse_image_name(path)) and named.suffix in _SUFFIXES - {facts_of(contrast).suffix}:
            raise InputError(f"--image {word}: its name says {named.suffix}; give it as that, or correct its name")
        if twin := next((other for other, known in images.items() if known.samefile(path)), None):
            raise InputError(f"--image {word}: the same file as {twin}; give each contrast its own")
        images[contrast] = path
    if missing := [contrast for contrast in needed if contrast not in images]:
        raise InputError(f"--image: the model needs {', '.join(missing)}, too: {form}")
    return {contrast: images[contrast] for contrast in needed}


def case_of(images: Mapping[Channel, Path], named: Chosen) -> tuple[Case, list[Finding]]:
    """A case of these images, with what a BIDS folder's would be warned of.

    It is called as `named` says, else as the BIDS names of its files, else by the name of the one that lesions are
    outlined on.

    Raises:
        InputError: `named` is no single patient and visit, or names of files are of two.
    """
    if len(named.subjects) > 1 or len(named.visits) > 1:
        raise InputError("--image: one patient at one visit; give one --subject and one --visit")
    parsed = {channel: name for channel, path in images.items() if (name := parse_image_name(path))}
    known = {channel: _place(name) for channel, name in parsed.items() if "sub" in name.entities}
    places = {place for channel, place in known.items() if not is_earlier(channel)}
    if (len(places) > 1 or len({subject for subject, _ in known.values()}) > 1) and not named.subjects:
        both = " and ".join(sorted({"_".join(part for part in place if part) for place in known.values()}))
        raise InputError(f"--image: the files are named as of {both}; where they are of one, say so with --subject")
    subject, visit = next(iter(places)) if places and not named.subjects else (None, None)
    subject = named.subjects[0] if named.subjects else subject or _from_name(images[outlined_on(images)])
    visit = named.visits[0] if named.visits else visit
    for label in (subject, visit):
        if label is not None and re.fullmatch(r"(sub|ses)-[A-Za-z0-9+]+", label) is None:
            raise InputError(f"--image: {label}: expected letters and digits for --subject and --visit")
    case = Case(0, subject, visit, dict(images), None, None)
    return case, [finding for contrast, path in images.items() for finding in _enhanced(case, contrast, path)]


def _file_fault(path: Path) -> str:
    """Why a path is no image that can be read, as far as its name tells; empty where it may be one."""
    if path.is_dir():
        return "a folder, not a file"
    if not path.is_file():
        return "a link to a file that is not there; fetch that file" if path.is_symlink() else "no such file"
    if not is_nifti(path.name):
        return f"expected .nii or .nii.gz; {how_to_convert(path) or 'convert it to NIfTI, or correct its name'}"
    return ""


def raw_of(path: Path) -> Path:
    """What an image's raw data are: the BIDS folder that it lies in, else the file alone."""
    subject = next((folder for folder in path.resolve().parents if is_subject(folder.name)), None)
    return subject.parent if subject is not None else path


def _enhanced(case: Case, contrast: Channel, path: Path) -> list[Finding]:
    name = parse_image_name(path)
    enhanced = name.enhanced if name is not None else has_agent(sidecar_of(path))
    return enhanced_note(case, contrast, ImageName(path, {}, facts_of(contrast).suffix, "", enhanced))


def _place(name: ImageName) -> tuple[str, str | None]:
    visit = name.entities.get("ses")
    return f"sub-{name.entities['sub']}", f"ses-{visit}" if visit else None


def _from_name(path: Path) -> str:
    """A subject of a file's name: sub-patient7FLAIR of patient7_FLAIR.nii.gz."""
    stem = re.sub(r"(?i)\.nii(\.gz)?$", "", path.name)
    return f"sub-{re.sub('[^A-Za-z0-9]', '', stem) or 'image'}"
