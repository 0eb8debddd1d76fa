"""ARCHITECTURE.md stays true: whatever it names in ``code`` exists, and where it says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("client", "controller", "broker", "bench", "tests")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"[\w.-]*/[\w./-]*")
_MEMBER = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)")


def _names() -> list[str]:
    text = re.sub(r"```.*?```", "", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.DOTALL)
    return sorted(set(re.findall(r"`([^`]+)`", text)))


@cache
def _paths() -> frozenset[str]:
    found: set[str] = set()
    for source in (*SOURCES, "grafana", "docs"):
        for path in (ROOT / source).rglob("*"):
            if "__pycache__" not in path.parts:
                found.add(str(path.relative_to(ROOT)))
    return frozenset(found)


def _is_path(name: str) -> bool:
    wanted = name.rstrip("/")
    return any(path == wanted or path.endswith("/" + wanted) for path in _paths())


@cache
def _declared() -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
    """Members by class, names by module, and every word of the sources."""
    classes: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}
    words: set[str] = set()
    for path in sorted(p for source in SOURCES for p in (ROOT / source).rglob("*.py")):
        if path == Path(__file__):
            continue
        text = path.read_text()
        words.update(re.findall(r"\w+", text))
        tree = ast.parse(text)
        names = modules.setdefault(path.stem, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(_members(node))
                bases.setdefault(node.name, set()).update(map(ast.unparse, node.bases))
                names.add(node.name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
    for _ in range(4):  # inherited, a few steps up
        for name, parents in bases.items():
            for parent in parents:
                classes[name] |= classes.get(parent, set())
    return classes, modules, words


def _members(node: ast.ClassDef) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                found.add(name)
    return found


def _exists(name: str) -> bool:
    classes, modules, words = _declared()
    if _is_path(name) or _PATH.fullmatch(name):
        return _is_path(name)
    member = _MEMBER.fullmatch(name)
    if member and member[1] in classes:
        return member[2] in classes[member[1]]
    if member and member[1] in modules:
        return member[2] in modules[member[1]]
    return all(word in words for word in _IDENTIFIER.findall(name))


def test_what_is_named_exists() -> None:
    missing = [name for name in _names() if not _exists(name)]
    assert not missing, f"ARCHITECTURE.md names what is nowhere: {missing}"


def test_the_test_notices() -> None:
    assert not _exists("ReplicaManager.no_such_method")
    assert not _exists("handlers/no_such_file.py")
    assert not _exists("noSuchNameAnywhere" + "AtAll")
    assert _exists("PartitionLog.on_written"), "an inherited member"
