"""Which cases a site's BIDS folders hold; no voxel is read here.

Plain pathlib and the entity grammar, not pybids: that indexes every file of a folder into SQLite (seconds to
minutes), brings SQLAlchemy and formulaic, and leaves out names that are only nearly BIDS without a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msfl_client.data.bids_folders import is_folder, no_masks, strange_visits, subject_folders, visible, visits_of
from msfl_client.data.bids_ignore import Ignored, read_ignored
from msfl_client.data.bids_names import (
    LESION,
    MASKS,
    NEW_LESION,
    ImageName,
    is_nifti,
    parse_image_name,
    preferred_first,
)
from msfl_client.data.bids_near import ignored_note, image_elsewhere, mask_elsewhere
from msfl_client.data.bids_tables import (
    compare_with_folders,
    read_participants,
    several,
    sidecar_scanner,
    visit_scanners,
)
from msfl_client.data.findings import Finding
from msfl_common.config.contrasts import Channel, Contrast, contrast_of, facts_of, is_earlier
from msfl_common.config.site import SiteConfig
from msfl_common.errors import CohortError


@dataclass(frozen=True)
class Case:
    """The images of one patient at one time.

    Attributes:
        dataset: index of its BIDS folder in `SiteConfig.data`.
        subject: "sub-001".
        visit: "ses-01", or None in a folder without visits.
        images: file of each contrast that was asked for and found; of two visits, of each of `Inputs.channels`.
        mask: the manual lesion mask, or that of new lesions; or None.
        scanner: name of the scanner, or None when the folder does not say.
        one_person: whether its subject is the same person in each of the site's folders (`SiteConfig.same_ids`).
        labels: the label image of the study's own parcellation, where it declares one and the site has it.
    """

    dataset: int
    subject: str
    visit_id: str | None
    images: Mapping[Channel, Path] = field(hash=False)
    mask: Path | None
    scanner: str | None
    one_person: bool = False
    labels: Path | None = None

    @property
    def place(self) -> tuple[int, str]:
        """Where it lies: folder and subject."""
        return self.dataset, self.subject

    @property
    def patient(self) -> str:
        """Who it is, unique within the site."""
        return patient_key(self.subject, self.dataset, self.one_person)

    @property
    def mask_label(self) -> str:
        """What a mask of it is of: a key of `bids_names.MASKS`."""
        return NEW_LESION if any(is_earlier(channel) for channel in self.images) else LESION

    @property
    def key(self) -> str:
        """Unique within the site and safe as a file name: sub-001_ses-01; after the first folder, _data-1."""
        return case_key(self.subject, self.visit_id, self.dataset)


def case_key(subject: str, visit: str | None, dataset: int) -> str:
    """`Case.key` of a case with these labels."""
    folder = f"data-{dataset}" if dataset else None
    return "_".join(part for part in (subject, visit, folder) if part)


def patient_key(subject: str, dataset: int, one_person: bool) -> str:
    """Who a subject of a folder is, unique within the site."""
    return case_key(subject, None, 0 if one_person else dataset)


def find_cases(
    site: SiteConfig, contrasts: Sequence[Contrast], label: str = LESION
) -> tuple[list[Case], list[Finding]]:
    """List the cases of every BIDS folder of a site, with what is odd about them.

    A case is a subject's visit, or the subject where there are no visits. Images are those of
    `sub-*/[ses-*/]anat`, masks `derivatives/<site.masks>/sub-*/[ses-*/]anat/*_label-<label>_mask.nii[.gz]`.
    Of several files for one contrast and visit the first by `bids_names.preferred_first` is used. A mask may
    also have another name of `ImageName.is_mask_of`; a name without `ses-` counts by its folder. The
    scanner is the column `scanner` of the subject's sessions.tsv, else of participants.tsv, else the
    sidecar's Manufacturer and ManufacturersModelName. Hidden files and what `.bidsignore` leaves out are passed
    over; links are followed.

    Args:
        site: the site; `data` and `masks` are used.
        contrasts: which images to look for.
        label: of which masks, a key of `bids_names.MASKS`.

    Returns:
        Cases in order of folder, subject and visit; findings that exclude a case name it.

    Raises:
        CohortError: a folder is missing, named twice, unreadable, or holds no `sub-*` folder.
    """
    roots = [folder.resolve() for folder in site.data]
    if len(set(roots)) < len(roots):
        raise CohortError("data: the same folder is named twice; every patient would count twice; remove one")
    cases: list[Case] = []
    findings: list[Finding] = []
    for index, root in enumerate(site.data):
        more_cases, more_findings = _find_in(root, index, site.masks, contrasts, label)
        cases += [replace(case, one_person=site.one_person) for case in more_cases]
        findings += more_findings
    return cases, findings + in_several_folders(site, [case.place for case in cases])


def in_several_folders(site: SiteConfig, places: Iterable[tuple[int, str]]) -> list[Finding]:
    """Subjects that several of a site's folders have, and what is made of it."""
    folders: defaultdict[str, set[int]] = defaultdict(set)
    for dataset, subject in places:
        folders[subject].add(dataset)
    shared = sorted(subject for subject, of in folders.items() if len(of) > 1)
    if not shared:
        return []
    what = "one person, trained on or tested on as such" if site.one_person else "different people"
    text = f"in several folders of `data`: {several(shared)}: each is taken as {what} (`same_ids` in the site file)"
    return [Finding("warn" if site.one_person else "pass", None, "same-ids", text)]


def _find_in(
    root: Path, index: int, masks: str, contrasts: Sequence[Contrast], label: str
) -> tuple[list[Case], list[Finding]]:
    folders, findings = subject_folders(root)
    participants = read_participants(root)
    findings += participants.findings
    if participants.ids is not None:
        findings += compare_with_folders(root, participants.ids, [folder.name for folder in folders])
    masks_root = root / "derivatives" / masks
    raw, of_masks = read_ignored(root), read_ignored(masks_root)
    if not is_folder(masks_root):
        findings.append(Finding("warn", None, "masks-folder", no_masks(masks_root)))
    cases = []
    kept = [folder for folder in folders if folder not in raw]
    if not kept:
        raise CohortError(f"{root}: .bidsignore leaves out every sub-* folder; correct it, or name another folder")
    for folder in kept:
        findings += strange_visits(folder)
        of_session = visit_scanners(folder)
        for visit in visits_of(folder):
            if visit is not None and folder / visit in raw:
                continue
            case = Case(index, folder.name, visit, {}, None, None)
            images, mask, more = _files(case, raw, of_masks, contrasts, label)
            findings += more
            scanner = of_session.get(visit or "") or participants.scanners.get(folder.name)
            scanner = scanner or sidecar_scanner(root, images)
            cases.append(Case(index, folder.name, visit, images, mask, scanner))
    return cases, [*findings, *ignored_note(raw, of_masks)]


def _files(
    case: Case, raw: Ignored, of_masks: Ignored, contrasts: Sequence[Contrast], label: str
) -> tuple[dict[Contrast, Path], Path | None, list[Finding]]:
    names, findings, spoken_of = _named(case, raw, contrasts)
    images: dict[Contrast, Path] = {}
    for contrast in contrasts:
        chosen, more = _choose(case, contrast, [name for name in names if _shown_in(name, contrasts) == contrast])
        findings += more
        if chosen is not None:
            images[contrast] = chosen
    for contrast in contrasts:
        if contrast not in images:
            known = [*images.values(), *spoken_of]
            text = image_elsewhere(case.subject, case.visit_id, facts_of(contrast).suffix, raw.root, raw, known)
            findings += [Finding("warn", case.key, "name", f"no {contrast}: {text}")] if text else []
    names, more, spoken_of = _named(case, of_masks, ())
    lesions = [name for name in names if name.is_mask_of(label)]
    plain = [name for name in lesions if name.is_plain_mask_of(label)]
    mask, also = _choose(case, MASKS[label], plain or lesions)
    findings += [*more, *also]
    if mask is not None and not plain:
        findings.append(Finding("pass", case.key, "mask-name", f"taken as the {MASKS[label]}: {mask.name}"))
    if mask is None:
        text = mask_elsewhere(case.subject, case.visit_id, label, of_masks, spoken_of)
        findings += [Finding("warn", case.key, "mask-name", f"no {MASKS[label]}: {text}")] if text else []
    return images, mask, findings


def _named(
    case: Case, ignored: Ignored, contrasts: Sequence[Contrast]
) -> tuple[list[ImageName], list[Finding], list[Path]]:
    """The NIfTI names of a data set that are this case's; findings on those that look wanted but are not, and these."""
    names, findings, passed_over, paths = [], [], [], []
    for kind in dict.fromkeys(["anat", *(facts_of(contrast).folder for contrast in contrasts)]):
        folder = ignored.root / case.subject / (case.visit_id or "") / kind
        try:
            paths += [path for path in visible(folder) if is_nifti(path.name) and path not in ignored]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return [], [Finding("fail", case.key, "unreadable", f"{folder}: cannot be opened: {error.strerror}")], []
    suffixes = {facts_of(contrast).suffix for contrast in contrasts}
    wanted = {suffix.lower() for suffix in suffixes}
    for path in paths:
        if (name := parse_image_name(path)) is None or (name.suffix.lower() in wanted and name.suffix not in suffixes):
            text = f"passed over, not a BIDS name: {path.name}"
        elif not name.belongs_to(case.subject, case.visit_id):
            text = f"passed over, its name says another subject or visit: {path.name}"
        else:
            names.append(name)
            if case.visit_id and "ses" not in name.entities:
                text = f"its name lacks {case.visit_id}; taken by its folder: {path.name}"
                findings.append(Finding("pass", case.key, "name", text))
            continue
        passed_over.append(path)
        findings.append(Finding("warn", case.key, "name", text))
    return names, findings, passed_over


def _choose(case: Case, what: str, names: Sequence[ImageName]) -> tuple[Path | None, list[Finding]]:
    ranked = preferred_first(names)
    if not ranked:
        return None, []
    findings = []
    if len(ranked) > 1:
        others = several(name.path.name for name in ranked[1:])
        text = f"{len(ranked)} files for {what}: {ranked[0].path.name} is used, not {others}"
        findings.append(Finding("warn", case.key, "several-files", text))
    return ranked[0].path, findings + enhanced_note(case, what, ranked[0])


def enhanced_note(case: Case, what: str, name: ImageName) -> list[Finding]:
    """A word on an image with a contrast agent that is none of a contrast with one."""
    if not name.enhanced or (what not in MASKS.values() and "ce" in facts_of(what).entities):
        return []
    text = f"{what} is contrast-enhanced, and there is no other: {name.path.name}"
    return [Finding("warn", case.key, "several-files", text)]


def _shown_in(name: ImageName, contrasts: Sequence[Contrast]) -> str | None:
    return contrast_of(name.suffix, name.entities, contrasts)
