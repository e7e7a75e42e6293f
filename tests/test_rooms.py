"""The house's rule: which room may import which (DESIGN §3), read from the code's own imports."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "data": set(),
    "model": set(),
    "trainer": {"data", "model"},
    "battle": {"data", "model"},
    "launch": {"data", "model", "trainer", "battle"},
}
# Light actor processes run these, so they must not pull torch in.
TORCH_FREE = (
    "schema",
    "replay_file",
    "observation",
    "tokenizer",
    "reward",
    "blocks",
    "walk",
    "encode",
    "space_stamps",
    "index",
    "sampler",
)


def imports_of(path):
    """(module, is relative) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    files = [p for p in (ROOT / room).rglob("*.py") if "node_modules" not in p.parts]
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module, level in imports_of(path)
        if level == 0 and module.split(".")[0] in (set(ROOMS) | {"tests"}) - ROOMS[room] - {room}
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["data", "model"])
def test_travelling_rooms_are_flat(room):
    """Their files are copied beside a saved model, where only `from .name import` works."""
    assert [p.name for p in (ROOT / room).iterdir() if p.is_dir() and list(p.rglob("*.py"))] == []
    wrong = [
        f"{path.name}: {'.' * level}{module}"
        for path in (ROOT / room).glob("*.py")
        for module, level in imports_of(path)
        if level > 1 or (level == 1 and "." in module) or (level == 0 and module.split(".")[0] in ROOMS)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", TORCH_FREE)
def test_encoding_needs_no_torch(name):
    modules = {module.split(".")[0] for module, level in imports_of(ROOT / "data" / f"{name}.py") if level == 0}
    assert "torch" not in modules


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_needs_one_that_needs_it(room):
    """Inside a room, too, imports go one way; those within functions count, which only put a circle off."""
    needs = {}
    for path in (ROOT / room).glob("*.py"):
        needs[path.stem] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or (node.level == 0 and node.module.split(".")[0] != room):
                continue
            parts = (node.module or "").split(".")[0 if node.level else 1 :]
            needs[path.stem] |= {parts[0]} if parts and parts[0] else {alias.name for alias in node.names}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle
