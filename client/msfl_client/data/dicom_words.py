"""What people call a DICOM series, in English, German, French, Italian, Spanish and Dutch: words, taken one by one.

A text is first brought to small letters without accents, with single spaces between its words (`plain`), so that
`T1w_MPR_vNav` and `t2_tse_tra_restore` hold neither a "reformat" nor a "rest". In the lists below `_` is a space or
nothing, and `*` at the end of a word any more letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

_JOINTS = (
    (re.compile(r"([a-z0-9])([A-Z][a-z])"), r"\1 \2"),  # AxT2Flair
    (re.compile(r"([a-z])([A-Z])"), r"\1 \2"),  # eT2W
)
_SIGNS = (
    (re.compile(r"(?<![a-z])c/c(?![a-z])"), " with contrast "),
    (re.compile(r"(?<![a-z])s/c(?![a-z])"), " without contrast "),
    (re.compile(r"(?<![a-z])(?:w/o|wo/|s/)(?=[a-z ]|$)"), " without "),
    (re.compile(r"(?<![a-z])c/(?=[a-z ]|$)"), " with "),
    (re.compile(r"(?<=[\s_])-\s?c(?=$|[\s_])"), " without contrast "),
    (re.compile(r"(?<![a-z])c\s?\+|\+\s?c(?![a-z])"), " with contrast "),
    (re.compile(r"\+\s?(?=gd|gad|km\b|mdc|contr|civ)"), " with "),
)
_GAP = re.compile(r"[^a-z0-9+*]+")


def _any_of(words: str) -> str:
    """A pattern for a list of words."""
    return "|".join(
        re.escape(word).replace("_", " ?").replace(r"\*\*", r"\*").replace(r"\*", r"\w*") for word in words.split()
    )


_AGENT = _any_of("""
    contrast* kontrast* contraste contrasto gado* gad gd gdtpa km kmgabe mdc mezzo_di_contrasto civ inj* iniezione
    inyeccion dotarem gadovist gadavist magnevist prohance multihance clariscan elucirem vueway omniscan artirem
    dotagraf cyclolux pixxoscan ferumoxytol
""")
_LINKS = r"(?:iv|i v|the|le|la|il|el|de|del|di|d|l|het|agent|medium|administratie van) "
_BEFORE = rf"\b(?:{_any_of('pre non no not without wo before sans avant ohne vor senza prima sin antes previo zonder')}"
_BEFORE += rf"|{_any_of('voor geen kein keine')})[ +]?(?:{_LINKS})*(?:{_AGENT})\b"
_PLAIN = _any_of("""
    unenhanced non_enhanced precontrast noncontrast pregad pregado pregd prekm native nativ nativa nativo blanco basale
    basal pre
""")
_GIVEN = _any_of("enhanced postcontrast postgad postgado postgd postkm nkm mkm cmdc ce post apres dopo despues nach")
_HIGH_CONTRAST = rf"\b(?:{_any_of('high hi best phase multi soft hoher haut alto')}) contrast\w*"
_AFTER_ELSE = r"\bpost (?:op|surg|tx|rx|treat|therap|biops|rad|rt|chemo|relapse|ictal|proc)\w*"

_HEAD = _any_of("""
    brain* head skull cranial cranium neuro neurocranium kopf schadel schaedel hirn* gehirn cerveau crane cerebral*
    encephal* cervello cranio encefal* testa cerebro craneo cabeza hersen* schedel hoofd cerebrum
""")
_ELSEWHERE = _any_of("""
    spine spines spinal spinale espinal c_spine t_spine l_spine cervic* thorac* thorax lumb* dorsal* sacr* cord hws bws
    lws wirbel* halswirbel* brustwirbel* lendenwirbel* halsmark ruckenmark rueckenmark myelo* rachis rachid* moelle
    medullaire colonna midollo columna medula cwk twk lwk wervel* halswervel* ruggenmerg orbit* augenh* optic* optique
    ottic* optico sella* pituit* hypoph* ipofis* hipofis* iac iacs cai rocher rochers felsenbein* rocca rocche penasco*
    tmj atm kiefer* neck hals cou collo cuello nek knee knie genou ginocchio rodilla shoulder schulter hip hufte abdom*
    pelvis becken bassin bacino liver leber foie prostat* breast chest heart herz cardia* ankle wrist elbow foot hand
    temporal_bone sinus nnh parotis larynx
""")
_ELSEWHERE += r"|th?\d{1,2} th?(?:[3-9]|1[0-2])|[cl][1-8] [cdtls]h?\d{1,2}"  # vertebrae: T1-T12, C2-T1
_LOCALISER = _any_of("""
    loc locs loca locali* lokali* scout scouts survey surview 3_plane triplane aahead* aahscout* smartbrain topogram
    pilot planscan prescan reperage reperages centratore posizionamento calib* cal ref_scan reference_scan shim*
""")
# Images of other kinds that are made of a head.
_OTHER = {
    kind: re.compile(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9*])")
    for kind, words in {
        "diffusion": _any_of("""dwi* edwi ddwi dti* diff* difus* adc* eadc trace* tensor noddi hardi dsi ivim dki b_0
                             b_800 b_1000 resolve"""),
        "echo-planar": _any_of("ep2d* ep3d* epi fmri bold resting rest rsfmri"),
        "perfusion": _any_of("perf* asl pcasl pasl dsc dce cbf cbv mtt ttp tmax rcbv twist arterial_spin* tricks"),
        "T2*-weighted": r"t2w? ?(?:\*|star|stern|etoile|estrella|stella|ster)\w*|t2w? (?:ge|gre|ffe|gradient|fl2d|eg)|"
                        + _any_of("""swi* swan* swip venobold haemo* hemo* qsm suscept* susz* suscett* ffe_t2
                                  gre_t2 eg_t2 medic merge"""),
        "angiography": _any_of("angio* tof* 3dtof mra mrv venog* veno* fleb* phleb* pca vessel* willis carot*"),
        "a map": _any_of("map maps mapping mapit t1_rho relaxo* mrf fingerprint* b_1 b1map b0map karte"),
        "synthetic": _any_of("syn synth* symri magic mdme qalas"),
        "phase or field map": _any_of("phase phasen field_map* fieldmapping gre_field fase topup"),
        "flow": _any_of("flow flux flusso flujo liquorfluss cine"),
        "spectroscopy": _any_of("spectro* spektro* spettro* espectro* mrs mrsi svs csi press steam"),
        "derived": _any_of("""mip mips minip reformat* refor recon* rekon* mpr_range subtr* sub soustr* sottr* sustr*
                           compose composed ricostr* riformat* vrt vr thick screen_save curved projection avg"""),
        "magnetization transfer": _any_of("mt mtc mtr mtsat mton mtoff magnetization_transfer cest apt aptw"),
        "inversion recovery of another kind": r"flair ?\*|" + _any_of(
            "stir dir double_inversion* double_ir psir* mp_2_rage* fgatir wmn inv_1 inv_2 doppelinversion*"
            " doble_inversion doppia_inversione true_ir real_ir ir_real flair_star flair2"),
        "steady-state": _any_of("ciss* fiesta* true_fisp* trufi* b_tfe b_ffe balanced dess psif ssfp bssfp"),
        "single-shot": _any_of("haste* ssfse ss_fse ssh_tse fast_brain"),
        "elastography": _any_of("mre elasto*"),
    }.items()
}  # fmt: skip


@cache
def plain(text: str) -> str:
    """A text as words: small letters without accents, digits, `+` and `*`, with single spaces.

    >>> plain("AxT2Flair_Schädel"), plain("T1 w/o Gd")
    ('ax t2 flair schadel', 't1 without gd')
    """
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    text = "".join(character for character in text if not unicodedata.combining(character))
    for joint, apart in _JOINTS:
        text = joint.sub(apart, text)
    text = text.lower()
    for sign, words in _SIGNS:
        text = sign.sub(words, text)
    return _GAP.sub(" ", text).strip()


def other_kind(text: str) -> str | None:
    """Which other kind of image a plain text speaks of: `diffusion` and so on, with the word; None: none."""
    return next((f"{kind} ({found[0]})" for kind, words in _OTHER.items() if (found := words.search(text))), None)


def says_localiser(text: str) -> bool:
    """Whether a plain text speaks of a scout or calibration."""
    return _has(_LOCALISER, text)


def says_head(texts: Iterable[str]) -> bool | None:
    """Whether plain texts speak of the head, of another part of the body (False), or of neither or both (None)."""
    joined = " | ".join(texts)
    head, elsewhere = _has(_HEAD, joined), _has(_ELSEWHERE, joined)
    return None if head == elsewhere else head


def says_both_parts(text: str) -> bool:
    """Whether a plain text speaks of the head and of another part."""
    return _has(_HEAD, text) and _has(_ELSEWHERE, text)


def says_agent(text: str) -> bool | None:
    """Whether a plain text says that a contrast agent was given, or not given; None: neither."""
    text = re.sub(_AFTER_ELSE, " ", re.sub(_HIGH_CONTRAST, " ", text))
    rest = re.sub(rf"{_BEFORE}|\b(?:{_PLAIN})\b", " ", text)
    if _has(f"{_AGENT}|{_GIVEN}", rest):
        return True
    return False if rest != text else None


def _has(words: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9*])", text) is not None
