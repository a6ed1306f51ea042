"""What a look at a site's data found: one line each, for the site's own eyes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One result of one rule.

    Attributes:
        level: "pass" is a note, "warn" deserves a look, "fail" excludes the case.
        case: `Case.key`, or None when it concerns the folder as a whole.
        rule: short name of the rule, a key of `FIXES`.
        text: what was expected and what was found. It may name files and subjects: it stays at the site.
    """

    level: Level
    case: str | None
    rule: str
    text: str


DOUBTS = ("forms-apart", "no-head", "inverted", "sequence")
"""Rules for which a prediction is refused unless forced: it cannot be right."""


def warnings_in(findings: Iterable[Finding]) -> tuple[str, ...]:
    """What deserves a look where no mask is needed, each text once: also what was in doubt, and forced."""
    warned = (
        finding.text
        for finding in findings
        if (finding.level == "warn" and finding.rule != "mask-name") or finding.rule in DOUBTS
    )
    return tuple(dict.fromkeys(warned))


def notes_on_folder(findings: Iterable[Finding]) -> tuple[str, ...]:
    """What deserves a look in a folder as a whole that is predicted: who in it is passed over."""
    return tuple(
        finding.text for finding in findings if finding.case is None and finding.rule in ("name", "bidsignore")
    )


def refusals_in(findings: Sequence[Finding], force: bool) -> tuple[str, ...]:
    """Why a case is not predicted: what fails and, unless forced, what is in doubt; then the way out of doubts."""
    doubts = [finding for finding in findings if finding.rule in DOUBTS and not force]
    failed = [finding for finding in findings if finding.level == "fail" and finding.rule not in DOUBTS]
    ways_out = list(dict.fromkeys(FIXES[finding.rule] for finding in doubts))
    ways_out += ["or take it as it is with --force"] if doubts else []
    return tuple(dict.fromkeys([finding.text for finding in (*failed, *doubts)] + ways_out))


FIXES: Mapping[str, str] = MappingProxyType(
    {
        "name": "rename it to anat/sub-<label>[_ses-<label>]_<contrast>.nii.gz; labels are letters and digits",
        "mask-name": "rename it to anat/sub-<label>[_ses-<label>]_label-lesion_mask.nii.gz, in the folder of masks",
        "bidsignore": "nothing to do where .bidsignore means it; its syntax is that of .gitignore",
        "several-files": "keep one file per contrast and visit, or name the one to use without acq-, run-",
        "participants": "give participants.tsv one tab-separated row per sub-* folder, each once",
        "ids": "write ids alike in every table and folder; spreadsheets drop leading zeros of numbers",
        "same-ids": "where they are different people, say `same_ids: different-people` in the site file",
        "masks-folder": "set `masks:` in the site file to the folder under derivatives/ that holds the masks",
        "visits": "give two visits of the patient, each in a ses- folder; they are in order of the numbers in their "
        "names, or of a column days or date in sub-<label>_sessions.tsv",
        "contrast": "add the image, or agree on a study that does without this contrast",
        "mask": "add the mask drawn by your readers; an all-zero mask says 'no lesions'",
        "readable": "copy or download the file again; it is damaged or no NIfTI file",
        "unreadable": "give the account that runs this read access, or fetch the file a link points to",
        "dimensions": "save one 3D volume per file",
        "values": "save real numbers, with every value finite",
        "nan-background": "nothing to do",
        "brightness": "nothing to do for lesions; for features, give images as the scanner or N4 made them",
        "cut-off": "export the image again with every value of it, not as a viewer's window shows it",
        "inverted": "give the image with its own sign: fluid is darker than white matter in T1w and FLAIR, not in T2w",
        "sequence": "look whether two images are in each other's place; else correct the times in the .json beside it",
        "times": "nothing to do where the image shows what its name says; the times stand in the .json beside it",
        "sidecar": "correct the .json beside it, a plain file of JSON that this account can read, or take it away",
        "constant": "export the image again; every voxel of it has the same value",
        "affine": "export the image again from DICOM; its position in space is unusable",
        "forms": "copy the correct one of sform and qform (or pixdim) over the other",
        "forms-apart": "look at the image, and copy the correct one of sform and qform (or pixdim) over the other",
        "units": "correct xyzt_units in its header; where sizes are not in mm, head and voxel sizes show it",
        "oblique": "nothing to do; it is resampled",
        "voxel-size": "check the unit: voxel sizes are in millimetres, 0.3 to 8",
        "slices": "use the diagnostic series, not the localiser",
        "head-volume": "look at the image: expected is one head or brain",
        "no-head": "look at the image, and at the unit of its voxel sizes: it must be one head or brain",
        "whole-head": "run `msfl-client preprocess SITE.yaml`; where the brain is extracted, set `preprocessed: brain`",
        "out-of-date": "run `msfl-client preprocess SITE.yaml`",
        "grid": "nothing to do when the images overlap in a viewer; it is resampled",
        "field-of-view": "look at both images in a viewer: they must show the same part of the same head",
        "alignment": "nothing to do when both images lie on one another in a viewer, or are co-registered",
        "misaligned": "look at both images in a viewer: they must be of one head; co-register them and save them again",
        "mirrored": "look which side is which in both images, and convert the wrong one again from DICOM",
        "mask-place": "look at the mask on the image it was drawn on: it may be moved, mirrored or of another patient",
        "mask-side": "look at the mask on the image it was drawn on; if it is mirrored, exchange left and right in it",
        "mask-grid": "resample the mask to the image it was drawn on, with nearest-neighbour interpolation",
        "mask-labels": "write lesion voxels as 1, or as the value of their class, and all others as 0",
        "mask-rounding": "nothing to do where these are errors of rounding; else write lesion voxels as 1, others as 0",
        "labels": "add a label image with the study's labels in the space of T1w, or correct it",
        "mask-class": "nothing to do when none of them has any; else outline them, or agree on a study without it",
        "mask-empty": "nothing to do when the patient has no lesions",
        "lesion-volume": "look at the mask: it may be inverted, or hold another structure",
        "same-image": "remove one of the two: one patient under two names would leak into validation",
        "same-contrast": "put its own image in the place of the one that is another contrast's",
        "near-image": "look at both: one scan saved twice, or one person under two ids, would be trained and tested on",
        "clinical": "correct the line in the table; the patient is left out of a classification until then",
        "tables": "correct the table, or leave it as it is where it is meant so",
        "outcome": "nothing to do: the site takes part all the same; others have the cases that it lacks",
        "leak": "take the column out of the study's inputs, or correct it in the table",
        "check-cache": "make the `state:` folder writable; until then every check reads all files",
        "unexpected": "report it with the output of the same command and --debug",
    }
)
"""One-line fix of each rule."""
