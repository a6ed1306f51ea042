"""Structure-aware mutations of JSON, YAML and bytes: what stays valid gets deep, what does not is as odd as can be."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import yaml

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    7,
    2**31,
    2**63,
    -(2**63),
    10**40,
    0.0,
    1e-300,
    1e300,
    -1e300,
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "a",
    "\x1b[2J\x1b]0;owned\x07",
    "[red]x[/nothing]",
    "\u202egnp.exe",
    "../../../etc/passwd",
    "a\0b",
    "x" * 100_000,
    [],
    {},
    [[[[[[[[]]]]]]]],
    [1] * 2000,
    {"__class__": "os.system"},
    ["FLAIR"] * 5,
    [512, 1024, 1024, 1024, 1024, 1024, 1024],
    "logistic",
    "classification",
)

Tree = Any


def mutate(rng: np.random.Generator, tree: Tree, changes: int = 1) -> Tree:
    """A copy with so many places changed: another value, a scaled number, a part moved, doubled or gone."""
    tree = copy.deepcopy(tree)
    for _ in range(changes):
        places = list(_places(tree))
        if not places:
            return HOSTILE[rng.integers(len(HOSTILE))]
        holder, key = places[rng.integers(len(places))]
        value = holder[key]
        match int(rng.integers(6)):
            case 0 | 1:
                holder[key] = copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])
            case 2 if isinstance(value, int | float) and not isinstance(value, bool):
                holder[key] = type(value)(value * (0, -1, 2, 10, 1000)[rng.integers(5)])
            case 3:
                del holder[key]
            case 4:
                other, name = places[rng.integers(len(places))]
                holder[key] = copy.deepcopy(other[name])
            case _ if isinstance(holder, dict):
                holder[f"{key}_"] = value
            case _:
                holder.append(value)
    return tree


def _places(tree: Tree) -> Any:
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def mutated_json(rng: np.random.Generator, tree: Tree) -> bytes:
    """A mutated document as JSON, sometimes broken as text."""
    text = json.dumps(mutate(rng, tree, int(rng.integers(1, 4))))
    return mutated_bytes(rng, text.encode()) if rng.random() < 0.2 else text.encode()


def mutated_yaml(rng: np.random.Generator, tree: Tree) -> bytes:
    """A mutated document as YAML, sometimes broken as text, or with one of YAML's own oddities."""
    content = yaml.safe_dump(mutate(rng, tree, int(rng.integers(1, 4))), allow_unicode=bool(rng.integers(2))).encode()
    if rng.random() < 0.3:
        content = mutated_bytes(rng, content)
    if rng.random() < 0.3:
        content += YAML_ODDITIES[rng.integers(len(YAML_ODDITIES))]
    return content


YAML_ODDITIES = (
    b"\na: &a [x]\nb: [*a, *a]\n",
    b"\na: &a {a: 1}\nb: {<<: *a}\n",
    b"\nx: !!python/object/apply:os.system [id]\n",
    b"\nx: !!binary AAAA\n",
    b"\nx: 2024-13-45\n",
    b"\nx: 1:1:1:1:99\n",
    b"\nx: " + b"9" * 5000 + b"\n",
    b"\nx: 0b\n",
    b"\nx: .nan\n",
    b"\nx: " + b"[" * 500 + b"\n",
    b"\n? {a: 1}\n: 2\n",
    b"\n--- 2\n",
    b"\n%YAML 9.9\n",
    b"\nname: one\nname: two\n",
    b'\nx: "\\0\\x1b"\n',
    b"\nx: !<tag:yaml.org,2002:int> 0x\n",
    b"\n=: 1\n",
    b"\n<<: [1]\n",
    b"\nx: +.inf\n",
    b"\nx: 0o9\n",
    b"\nx: _\n",
    b"\nx: +_\n",
)


def mutated_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes turned, cut, doubled or put in."""
    data = bytearray(content or b"x")
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        match int(rng.integers(4)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at : at + int(rng.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + int(rng.integers(1, 200))]
            case _:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        if not data:
            return b""
    return bytes(data)
