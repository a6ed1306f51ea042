"""What a series is taken for: by its image facts, then by its names; what is not certain is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from tests.benchmarks.faults.dicom import LEAST_RIGHT, answer_to, read_names
from tests.dicom_series import write_series

from msfl_client.data.dicom import import_dicom
from msfl_client.data.dicom_files import read_dicom_folder
from msfl_client.data.dicom_report import SeriesReport, read_series
from msfl_client.data.dicom_report import write_series as write_series_table
from msfl_client.data.dicom_rules import by_rule, load_rules
from msfl_client.data.dicom_series import SeriesFacts, recognise_series
from msfl_client.data.dicom_stacks import fault_of, parts_of
from msfl_client.data.dicom_words import plain, says_agent
from msfl_common.config.contrasts import Pulse
from msfl_common.errors import ConfigError

MPRAGE, T1_SE = Pulse(0.003, 2.0, 0.9, True), Pulse(0.01, 0.5, 0, False)
FLAIR, T2, PD = Pulse(0.1, 9.0, 2.5, False), Pulse(0.1, 5.0, 0, False), Pulse(0.014, 3.0, 0, False)


def answer(description: str, pulse: Pulse = Pulse(), **more: Any) -> str:  # noqa: B008
    found = recognise_series(SeriesFacts(description, pulse=pulse, **({"num_slices": 40} | more)))
    return {"other": "-", "unclear": "?", "wanted": f"{found.contrast}{'+' if found.enhanced else ''}"}[found.status]


@pytest.mark.parametrize("half", ["development", "fresh"])
def test_names_in_six_languages_are_right_or_asked_about(half: str) -> None:
    rows = [row for row in read_names() if row["half"] == half]
    answers = [(answer_to(row), row["expected"]) for row in rows]
    assert len(rows) >= 40
    assert {row["language"] for row in rows} == {"en", "de", "fr", "it", "es", "nl"}
    assert [pair for pair in answers if pair[0] not in ("?", pair[1])] == []
    assert sum(found == expected for found, expected in answers) >= LEAST_RIGHT * len(rows)


@pytest.mark.parametrize(
    ("description", "pulse", "expected"),
    [
        ("Sag CUBE T2 FLAIR", Pulse(), "FLAIR"),
        ("OAx T1 FLAIR", Pulse(), "T1w"),
        ("OAx T1 FLAIR", Pulse(0.01, 2.3, 0.86, False), "T1w"),
        ("SAG FLAIR", Pulse(0.01, 2.3, 0.86, False), "?"),  # a T1 FLAIR, by its times
        ("3D_BRAVO", Pulse(), "T1w"),
        ("T1 TSE post Gd", T1_SE, "T1w+"),
        ("pd+t2_tse_tra", PD, "PDw"),
        ("pd+t2_tse_tra", T2, "T2w"),
        ("pd+t2_tse_tra", Pulse(), "?"),
        ("", FLAIR, "FLAIR"),
        ("", MPRAGE, "T1w"),
        ("", T2, "T2w"),
        ("", Pulse(0.005, 0.03, 0, True), "?"),  # or an angiogram
        ("t2_tirm_cor", Pulse(0.06, 5.0, 0.16, False), "-"),
        ("t2_tirm_cor", Pulse(), "FLAIR"),
        ("t1_mprage", T2, "?"),
        ("t2*_gre_hemo", Pulse(0.02, 0.6, 0, True), "-"),
        ("T2 ax", Pulse(0.02, 0.6, 0, True), "?"),
        ("T1-T12 SAG", Pulse(), "-"),
        ("sag T2 C2-T3", T2, "-"),
        ("report", Pulse(), "?"),
        ("visit1", FLAIR, "FLAIR"),
        ("t1_vibe_dixon_tra_F", Pulse(0.003, 0.006, 0, True), "-"),
        ("t1_vibe_dixon_tra_W", Pulse(0.003, 0.006, 0, True), "T1w"),
        ("AX T1 PRE AND POST", T1_SE, "?"),
        ("T1 senza e con mdc", T1_SE, "?"),
        ("Sag T1 W/ and W/O", T1_SE, "?"),
        ("test1 heart1", Pulse(), "?"),
    ],
)
def test_times_and_names(description: str, pulse: Pulse, expected: str) -> None:
    assert answer(description, pulse) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"modality": "CT"}, "-"),
        ({"image_type": frozenset({"DERIVED", "SECONDARY", "MPR"})}, "-"),
        ({"image_type": frozenset({"ORIGINAL", "PRIMARY", "P"})}, "-"),
        ({"has_diffusion": True}, "-"),
        ({"is_angiogram": True}, "-"),
        ({"scanning": frozenset({"EP", "SE"})}, "-"),
        ({"num_slices": 5}, "-"),
        ({"coverage_mm": 45.0}, "-"),
        ({"body_part": "CSPINE"}, "-"),
        ({"body_part": "HEAD"}, "T2w"),
        ({"protocol": "MS BRAIN AND CERVICAL"}, "T2w"),
        ({"protocol": "CERVICAL SPINE"}, "-"),
        ({"protocol": "CERVICAL SPINE", "body_part": "HEAD"}, "?"),
        ({"protocol": "clinical NEUROSURGICAL VISIT1"}, "T2w"),
        ({"study": "MRT HWS"}, "-"),
        ({"agent": "Gadovist"}, "T2w+"),
        ({"agent": "NO"}, "T2w"),
        ({"agent": "keine Kontrastmittelgabe: ohne KM"}, "T2w"),
        ({"agent": "Gadovist", "is_before_agent": True}, "T2w"),
    ],
)
def test_image_facts_go_before_names(facts: dict[str, Any], expected: str) -> None:
    assert answer("T2 tse tra", T2, **facts) == expected


def test_contrast_agent_in_doubt_is_asked_about() -> None:
    assert answer("T1 pre contrast", T1_SE, agent="Gadovist") == "?"
    assert answer("AX T1", T1_SE, protocol="BRAIN WITH CONTRAST") == "?"
    assert answer("AX T1", T1_SE, protocol="BRAIN WITH CONTRAST", agent="Gadovist") == "T1w+"
    assert answer("FLAIR", FLAIR, body_part="SPINE") == "?"
    assert answer("AX T1", T1_SE, protocol="MS BRAIN W/WO CONTRAST", agent="Gadovist") == "T1w+"
    assert answer("AX T1 PRE", T1_SE, protocol="MS BRAIN W/WO CONTRAST") == "T1w"


@pytest.mark.parametrize("text", ["T1 PRE CONTRAST", "T1 non contrast", "sans gado", "T1 w/o Gd", "vor KM", "senza mdc",
                                  "sin contraste", "zonder contrast", "nativ", "AX T1 -C", "s/c",
                                  "unenhanced"])  # fmt: skip
def test_without_an_agent(text: str) -> None:
    assert says_agent(plain(text)) is False


@pytest.mark.parametrize("text", ["T1 +C", "C+ T1", "post", "T1 mit KM", "nach KM", "avec gado",
                                  "après gadolinium", "con mdc",
                                  "dopo mdc", "con contraste", "c/c", "na gadolinium", "Gd", "T1 ce"])  # fmt: skip
def test_with_an_agent(text: str) -> None:
    assert says_agent(plain(text)) is True


@pytest.mark.parametrize("text", ["T1 post op", "high contrast T1", "t1_mprage", "postprocessing", "kmspace"])
def test_neither(text: str) -> None:
    assert says_agent(plain(text)) is None


def test_the_rules_of_a_site_go_first(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "series:\n"
        "- {description: 'Sonderfolge 3*', protocol: '*ms', take_for: FLAIR}\n"
        "- {description: 'sonderfolge*', take_for: skip}\n"
        "- {protocol: 'T1_KM', take_for: T1w, agent: true, whole: true}\n"
    )
    rules = load_rules(path).series
    found = by_rule(rules, SeriesFacts("SONDERFOLGE_3D", "Köpf-MS"))
    assert found is not None
    assert (found.status, found.contrast, found.why) == ("wanted", "FLAIR", "by rule 1 of the rules file")
    second = by_rule(rules, SeriesFacts("Sonderfolge 3", "other"))
    assert second is not None
    assert second.status == "other"
    third = by_rule(rules, SeriesFacts("x", "t1 km"))
    assert third is not None
    assert (third.enhanced, third.is_whole, second.is_whole) == (True, True, False)
    assert by_rule(rules, SeriesFacts("x", "t1 km 2")) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("series: [{take_for: T1w}]", "a rule needs a description or a protocol"),
        (
            "series: [{description: x, take_for: T3w}]",
            r"^\S+: series, entry 1, take_for: found 'T3w'; no such contrast: T3w; did you mean .* skip$",
        ),
        ("series: [{description: x}]", "take_for"),
        ("people: anybody", "people"),
        ("rules: []", "rules"),
    ],
)
def test_a_wrong_rules_file_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        load_rules(path)


def test_what_whoever_named_a_series_wrote_is_no_command(tmp_path: Path) -> None:
    report = SeriesReport("", "", "1", "=HYPERLINK(A1)", "\x1b[2J\u202eT1w", "passed over", "", "-", key=("1.2", "1"))
    for _ in range(2):  # what is kept stays as it is
        write_series_table(tmp_path, read_series(tmp_path), [] if read_series(tmp_path) else [report])
        kept = read_series(tmp_path)["1.2", "1"]
        assert (kept.description, kept.protocol) == ("'=HYPERLINK(A1)", r"\x1b[2J\u202eT1w")


@pytest.mark.parametrize("value", ["inf", "nan", "1e400", "x"])
@pytest.mark.parametrize("tag", [0x00200011, 0x00201002, 0x20011018, 0x00180050, 0x00180088])
def test_a_number_that_is_none_ends_no_import(tmp_path: Path, tag: int, value: str) -> None:
    write_series(tmp_path, 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        image[tag] = pydicom.DataElement(tag, "LO", value)
        image.save_as(path)
    (series,) = read_dicom_folder(tmp_path).series
    assert (len(series.frames), series.num_expected) == (12, 0)
    assert fault_of(series, parts_of(series)[0]) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SeriesDescription", "PatientName"])
def test_a_text_longer_than_any_can_be_bars_no_later_import(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / "a", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    for path in (tmp_path / "a").iterdir():
        image = pydicom.dcmread(path)
        element = pydicom.datadict.tag_for_keyword(name)
        image[element] = pydicom.DataElement(element, "UT", "FLAIR " + 200_000 * "x")
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        image.save_as(path, implicit_vr=True, little_endian=True)
    found = [import_dicom(tmp_path / "a", tmp_path / "bids").series[0].outcome for _ in range(2)]
    assert found == ["imported", "there already"]
