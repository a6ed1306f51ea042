"""A seeded sample of what cosmic-ray would change in a module: places first, then one change of each.

A binary operator has twelve changes and a name in an annotation as many; drawn by change, half the sample would be of a
few lines. Places of which no change can be noticed are left out: annotations, which nothing evaluates, and docstrings.
"""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

Place = tuple[int, int]  # line, from 1, and column


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: Path
    place: Place
    operator: str
    occurrence: int

    def source(self) -> str:
        """The module with the change.

        Raises:
            LookupError: the module is no longer what was sampled.
        """
        changed = mutate_code(self.module.read_text(encoding="utf-8"), get_operator(self.operator)(), self.occurrence)
        if changed is None:
            raise LookupError(f"{self.module}: no such change")
        return str(changed)

    def change(self) -> tuple[str, str]:
        """The lines that are taken out, and those put in."""
        pair = self.module.read_text(encoding="utf-8").splitlines(), self.source().splitlines()
        lines = [
            line for line in difflib.unified_diff(*pair, n=0, lineterm="") if line[:3] not in ("---", "+++", "@@ ")
        ]
        taken, put = ([line[1:].strip() for line in lines if line[0] == sign] for sign in "-+")
        return " ".join(taken), " ".join(put)


def sample(modules: Sequence[Path], number: int, seed: int) -> list[Mutant]:
    """So many changes at different places, the same for the same sources and seed."""
    at = dict[tuple[Path, Place], list[Mutant]]()
    for mutant in (one for module in modules for one in changes_of(module)):
        at.setdefault((mutant.module, mutant.place), []).append(mutant)
    chance = random.Random(seed)
    shuffled = chance.sample(sorted(at), len(at))
    drawn = (chance.choice(at[place]) for place in shuffled)
    return list(islice((mutant for mutant in drawn if _compiles(mutant)), number))


def _compiles(mutant: Mutant) -> bool:
    """A change that is no Python is noticed by nobody's tests but the parser's."""
    try:
        ast.parse(mutant.source())
    except SyntaxError:
        return False
    return True


def changes_of(module: Path) -> Iterator[Mutant]:
    """Every change of a module that a test could notice."""
    source = module.read_text(encoding="utf-8")
    unnoticed = list(_unnoticed(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        operator_class = get_operator(name)
        if operator_class.arguments():
            continue  # those have to be told what to put in
        operator = operator_class()
        starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(starts):
            if not any(first <= start < last for first, last in unnoticed):
                yield Mutant(module, start, name, occurrence)


def _unnoticed(tree: ast.AST) -> Iterator[tuple[Place, Place]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(returns=returns, args=arguments):
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                yield from (_span(one.annotation) for one in every if one.annotation is not None)
                yield from [] if returns is None else [_span(returns)]
            case ast.AnnAssign(annotation=annotation):
                yield _span(annotation)


def _span(node: ast.expr) -> tuple[Place, Place]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
