"""Which names of others the source uses without their makers' promise: found in the source itself.

imported     from a module that documents nothing; `PUBLIC` has those that do
reached for  `module.name`, `vars(module)["name"]`, `vars(module).update(name=...)` and `getattr(module, ...)` of a
                 module so imported
taken over   what a subclass of theirs overrides, or calls of its base by `self.` and `super().`
private      `object._name` and `object.__dict__["_name"]`, whatever the object is; MLflow's own settings
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from tests.private_names.shapes import thing_at

WATCHED = ("flwr", "httpx", "mlflow", "uvicorn")
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation", "httpx", "mlflow", "mlflow.entities")
PUBLIC += ("mlflow.exceptions", "uvicorn")
HARMLESS = {"_replace", "_exit"}  # documented: of named tuples, and of os


def uses_of(path: Path) -> set[str]:
    """Dotted names; of a private attribute, whose object nobody knows from the source, `*._name`."""
    source = path.read_text(encoding="utf-8")
    if not any(library in source for library in WATCHED):
        return set()
    tree = ast.parse(source)
    imported = dict(_imported(tree))
    names = {where for where in imported.values() if not _is_public(where)}
    modules = {name: where for name, where in imported.items() if isinstance(thing_at(where), ModuleType)}
    names -= set(modules.values())
    names |= set(_of_modules(tree, modules))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [imported[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in imported]
            names |= {name for base in bases for name in _taken_over(node, base)}
    names |= {f"mlflow.server.constants.{text}" for text in _texts(tree) if text.startswith("_MLFLOW_SERVER")}
    return names | {f"*.{name}" for name in _private(tree)}


def _is_public(path: str) -> bool:
    module, name = path.rsplit(".", 1)
    return module in PUBLIC and not name.startswith("_") and name in getattr(thing_at(module), "__all__", [name])


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in WATCHED:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _of_modules(tree: ast.AST, modules: dict[str, str]) -> Iterator[str]:
    texts = _texts(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=alias), attr=name) if alias in modules:
                yield f"{modules[alias]}.{name}"
            case ast.Subscript(
                value=ast.Call(func=ast.Name(id="vars"), args=[ast.Name(id=alias)]), slice=ast.Constant(value=name)
            ) if alias in modules:
                yield f"{modules[alias]}.{name}"
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="vars"), args=[ast.Name(id=alias)]), attr="update"),
                keywords=keywords,
            ) if alias in modules:
                yield from (f"{modules[alias]}.{keyword.arg}" for keyword in keywords)
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=alias), *_]) if alias in modules:
                there = vars(thing_at(modules[alias]))
                yield from (f"{modules[alias]}.{text}" for text in texts if text in there)


def _taken_over(node: ast.ClassDef, base: str) -> Iterator[str]:
    """Members of a base class of others that a class overrides or calls; `__init__` is the class's own name."""
    if _is_public(base) and base.split(".")[0] == "flwr":
        return
    own = {one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    set_here = set[str]()
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                set_here.add(name)
    inherited = {name for name in own if hasattr(thing_at(base), name) and not hasattr(object, name)}
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name) if name != "__init__":
                inherited.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name not in own | set_here:
                inherited.add(name)
    yield from (f"{base}.{name}" for name in inherited)


def _private(tree: ast.AST) -> Iterator[str]:
    """Private names of objects whose class is not of this module."""
    own = set(_defined(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Call()):
                continue
            case ast.Attribute(attr=name) if _looks_private(name) and name not in own | HARMLESS:
                yield name
            case ast.Subscript(value=ast.Attribute(attr="__dict__"), slice=ast.Constant(value=str(name))) if (
                _looks_private(name)
            ):
                yield name


def _texts(tree: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def _looks_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def uses_in(paths: Sequence[Path]) -> dict[str, str]:
    """A module that uses it, by the name that is used."""
    return {name: str(path) for path in paths for name in uses_of(path)}
