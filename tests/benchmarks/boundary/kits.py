"""Joining kits that a stranger, or the coordinator itself, has made to do harm: refused by one line, whatever they are.

Mutations know what a kit is made of: entries of an archive, fields, certificates, signatures, files of a folder. Some
are signed by the study's authority, as a hostile coordinator's would be.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
import stat
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from msfl_client.site.keys import make_key
from msfl_common.errors import InputError
from msfl_common.trust.kit import (
    CA_FILE,
    KIT_FILE,
    KIT_FILES,
    SIGNATURE_FILE,
    STUDY_FILE,
    SignedKit,
    parse_kit,
    read_kit,
    sign_kit,
)
from msfl_common.trust.kit_archive import pack_kit, unpack_kit
from msfl_common.trust.signatures import is_signed
from msfl_server.study.certificates import issue_server_certificate, make_authority
from msfl_server.study.folder import init_study
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site
from tests.benchmarks.figure import Figure
from tests.kits import private_key, put

NUM_MUTATIONS = 2000
Files = dict[str, bytes]

_NAMES = [
    *("../kit.json", "/etc/cron.d/msfl", "kit/../../site.yaml", "kit\\kit.json", "KIT/kit.json", "kit/Kit.json"),
    *("kit/state", "kit/msfl_client/__init__.py", "kit/sitecustomize.py", "kit/kit.json ", "kit//kit.json", "kit/"),
    *("kit/\u202ekit.json", "kit/kit.json\n", "C:kit.json", "kit/ca.crt/..", "kit/kit\u0131.json", "\x1b[2Jkit.json"),
]
_VALUES = [
    None,
    True,
    -1,
    10**400,
    1e308,
    "",
    "x" * 10**5,
    "\x1b[2J",
    "a\nb",
    [],
    [[]] * 50,
    {},
    {"a": {}},
    "../x",
    "\ud800",
]
_STUDIES = [
    b"a: &a [x, x]\nb: &b [*a, *a]\nname: pilot\n",
    b"[" * 60_000,
    b"- " * 40_000,
    b"? " * 40_000,
    b"".join(b" " * depth + b"a:\n" for depth in range(500)),
    b"name: !!python/object/apply:os.system [true]\n",
    b"name: pilot\nseed: " + b"9" * 100_000,
    b"\xff\xfename: pilot",
    b"name: pilot\x00",
    b"name: other\n",
    b"",
    b"- pilot\n",
    b"name: pilot\nrounds: {num_rounds: .nan}\n",
    b"name: pilot\n" * 1000,
    b"name: 'pilot\n\xe2\x80\xae",
    b"#" * 200_000,
]


@dataclass(frozen=True)
class Honest:
    """A kit as its coordinator made it."""

    archive: bytes
    kit: SignedKit
    key: ec.EllipticCurvePrivateKey

    @property
    def files(self) -> Files:
        return dict(self.kit.files)


def honest_kit(folder: Path) -> Honest:
    study = init_study(folder / "pilot", ServerConfig(hosts=("localhost",)))
    make_key(folder / "site.key", "a")
    archive = add_site(study, "a", folder / "site.key.pub")
    return Honest(archive.read_bytes(), read_kit(study.kit("a")), private_key(study.ca_key))


def mutated_archive(honest: Honest, draw: random.Random) -> tuple[str, bytes]:
    """A name for what was done, and the archive."""
    kind = draw.choice(["bytes", "entries", "content", "content"])
    if kind == "bytes":
        return kind, _other_bytes(honest.archive, draw)
    if kind == "entries":
        return kind, _other_entries(honest.files, draw)
    name, files = mutated_files(honest, draw)
    return name, pack_kit({file: files.get(file, b"") for file in KIT_FILES})


def mutated_files(honest: Honest, draw: random.Random) -> tuple[str, Files]:
    """Contents that differ in one file, in half of the cases signed anew by the authority."""
    files, name = honest.files, draw.choice(KIT_FILES)
    change: Callable[[Honest, random.Random], bytes] = {
        KIT_FILE: _other_json,
        CA_FILE: _other_certificate,
        STUDY_FILE: _other_study,
        SIGNATURE_FILE: _other_signature,
    }[name]
    files[name] = change(honest, draw) if draw.random() < 0.8 else _other_bytes(files[name], draw)
    if name != SIGNATURE_FILE and draw.random() < 0.5:
        files[SIGNATURE_FILE] = sign_kit(honest.key, "a", files)
        return f"{name}, signed", files
    return name, files


def mutate_folder(honest: Honest, draw: random.Random, folder: Path) -> str:
    """Make a kit's folder that is not as it should be; what was done."""
    put(honest.files, folder)
    victim = folder / draw.choice(KIT_FILES)
    kind = draw.choice(["link", "folder link", "pipe", "folder", "strange", "large", "missing", "content", "content"])
    match kind:
        case "link":
            victim.rename(folder.parent / "elsewhere")
            victim.symlink_to(folder.parent / "elsewhere")
        case "folder link":
            folder.rename(folder.parent / "elsewhere")
            folder.symlink_to(folder.parent / "elsewhere")
        case "pipe":
            victim.unlink()
            os.mkfifo(victim)
        case "folder":
            victim.unlink()
            victim.mkdir()
        case "strange":
            name = draw.choice([b"state", b"sitecustomize.py", b"KIT.JSON", b"\xff\x1b[2J", b"kit.json\n", b".pth"])
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
        case "large":
            with victim.open("ab") as stream:
                stream.truncate(draw.choice([2**20, 2**40]))
        case "missing":
            victim.unlink()
        case _:
            put(mutated_files(honest, draw)[1], folder)
    return kind


def fault_of(honest: Honest, take: Callable[[], SignedKit]) -> str:
    """What is wrong with how a kit was taken: empty when it was refused by one line, or the authority signed it."""
    try:
        kit = take()
    except InputError as error:
        line = str(error)
        return "" if len(line.splitlines()) == 1 and line.isprintable() else f"not one plain line: {line!a:.300}"
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.200}"
    digests = {name: hashlib.sha256(kit.files[name]).hexdigest() for name in (KIT_FILE, CA_FILE, STUDY_FILE)}
    content = json.dumps({"site": kit.kit.site, "files": digests}, sort_keys=True, separators=(",", ":")).encode()
    signature = kit.files[SIGNATURE_FILE].decode().strip()
    signed = is_signed(honest.key.public_key(), "msfl kit 1", content, signature)
    return "" if signed and kit.authority == honest.kit.authority else "took over what the authority has not signed"


def attack(honest: Honest, seed: int, work: Path) -> tuple[str, str]:
    """One mutation: what was done, and what was wrong with the answer."""
    draw = random.Random(seed)
    if seed % 4 == 0:
        kind = mutate_folder(honest, draw, work / "kit")
        return f"folder, {kind}", fault_of(honest, lambda: read_kit(work / "kit"))
    kind, content = mutated_archive(honest, draw)
    path = work / "kit.zip"
    path.write_bytes(content)
    return kind, fault_of(honest, lambda: parse_kit(unpack_kit(path), str(path)))


def measure(num_mutations: int = NUM_MUTATIONS) -> list[Figure]:
    """Kits that were not refused as they should be, the longest time that one took, and the memory that all took."""
    kinds: Counter[str] = Counter()
    faults, longest_s = [], 0.0
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        honest = honest_kit(base)
        before = _tree(base)
        for seed in range(num_mutations):
            work = base / "work"
            work.mkdir()
            start = time.perf_counter()
            kind, fault = attack(honest, seed, work)
            longest_s = max(longest_s, time.perf_counter() - start)
            kinds[kind] += 1
            faults += [f"{seed}: {kind}: {fault}"] if fault else []
            shutil.rmtree(work)
        strays = sorted(set(_tree(base)) ^ set(before))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    how = f"{num_mutations} mutations of {len(kinds)} kinds; {'; '.join(faults[:3]) or 'none'}"
    return [
        Figure("mutated kits taken over, or not refused by one line", len(faults), "", 0, "at_most", "", how),
        Figure("files written outside by mutated kits", len(strays), "", 0, "at_most", "", how),
        Figure("longest look at a mutated kit", longest_s, "s", 10.0, "at_most", "", how),
        Figure("peak memory of looking at mutated kits", peak_mb, "MB", 500, "at_most", "", "of the whole process"),
    ]


def _other_bytes(content: bytes, draw: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place, end = draw.randrange(len(made) + 1), draw.randrange(len(made) + 1)
        match draw.randrange(5):
            case 0:
                made[place:place] = draw.randbytes(draw.randint(1, 30))
            case 1:
                del made[place:]
            case 2:
                del made[place:end]
            case 3:
                made += made[place:end]
            case _:
                if place < len(made):
                    made[place] ^= 1 << draw.randrange(8)
    return bytes(made)


def _other_entries(files: Files, draw: random.Random) -> bytes:
    """An archive with one entry that is not as it should be."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        entries = [(zipfile.ZipInfo(f"kit/{name}"), content) for name, content in files.items()]
        index = draw.randrange(len(entries))
        entry, content = entries[index]
        match draw.randrange(8):
            case 0:
                entries[index] = (zipfile.ZipInfo(draw.choice(_NAMES)), content)
            case 1:
                entries.append((zipfile.ZipInfo(draw.choice(_NAMES)), b"print('hello')"))
            case 2:
                entries.append((zipfile.ZipInfo(entry.filename), b"another"))
            case 3:
                kind = draw.choice([stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
                entry.external_attr = (kind | 0o777) << 16
                entries[index] = (entry, b"/etc/passwd")
            case 4:
                entries[index] = (entry, b"\0" * draw.choice([2**18, 2**24, 2**27]))
            case 5:
                entry.compress_type = draw.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
            case 6:
                entries += [(zipfile.ZipInfo(f"kit/{number}"), b"") for number in range(3000)]
            case _:
                del entries[index]
        for entry, content in entries:
            if entry.compress_type == zipfile.ZIP_STORED:
                entry.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                packed.writestr(entry, content)
    content = bytearray(archive.getvalue())
    if draw.random() < 0.2:  # sizes, flags, methods and names as the directory tells them
        start = content.index(b"PK\x01\x02")
        for _ in range(3):
            content[start + draw.randrange(46)] = draw.randrange(256)
    return bytes(content)


def _other_json(honest: Honest, draw: random.Random) -> bytes:
    kit = json.loads(honest.files[KIT_FILE])
    name = draw.choice([*kit, "extra"])
    kit[name] = draw.choice(_VALUES)
    if draw.random() < 0.2:
        del kit[name]
    return json.dumps(kit).encode() if draw.random() < 0.9 else b"[" * 100_000


def _other_certificate(honest: Honest, draw: random.Random) -> bytes:
    own, other = honest.files[CA_FILE], make_authority("pilot")
    server = issue_server_certificate(other, ["localhost"])
    match draw.randrange(6):
        case 0:
            return own + other.certificate_pem
        case 1:
            return other.certificate_pem + own
        case 2:
            return other.certificate_pem
        case 3:
            return server.certificate_pem
        case 4:
            return own + b"# and more\n" + other.key_pem
        case _:
            return make_authority("pilot", datetime.now(UTC) - timedelta(days=4000)).certificate_pem


def _other_study(honest: Honest, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return draw.choice(_STUDIES)
    lines = honest.files[STUDY_FILE].splitlines(keepends=True)
    place = draw.randrange(len(lines))
    return b"".join(
        [*lines[:place], *lines[place + draw.randint(1, 3) :], draw.choice([b"", b"seed: 1\n", b"x: *y\n"])]
    )


def _other_signature(honest: Honest, draw: random.Random) -> bytes:
    files = honest.files
    match draw.randrange(5):
        case 0:
            return sign_kit(ec.generate_private_key(ec.SECP256R1()), "a", files)
        case 1:
            return sign_kit(honest.key, "b", files)
        case 2:
            return b"A" * draw.choice([0, 10, 10**5])
        case 3:
            return draw.randbytes(100)
        case _:
            return files[SIGNATURE_FILE][::-1]


def _tree(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_size for path in folder.rglob("*")}
