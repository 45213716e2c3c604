"""The layers of the code, read from the imports of its sources: each names only those below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "rust" / "core"
LAYERS = [
    "error",
    "panics",
    "monitor",
    "schema",
    "storage",
    "tasks",
    "context",
    "choice",
    "pack",
    "read",
    "plan",
    "segment",
    "tokenize",
    "contamination",
    "job",
    "spool",
    "settle",
    "mask",
    "write",
    "report",
    "notes",
    "verify",
    "pipeline",
    "commands",
]
"""The modules of the core, the lowest first: a module may import from those before it."""

NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|\br(#*)".*?"\1|"(?:\\.|[^"\\])*"|' + r"'(?:\\[^']+|[^\\'])'", re.DOTALL
)
"""Comments, texts and characters, in which an import is none."""
TEST = re.compile(r"#\[cfg\(test\)\][^;{]*[;{]")
PATH = re.compile(r"\b(?:crate::|((?:super::)+))(\{[^;]*\}|\w+)")


class Import(NamedTuple):
    """A place where one module of the core names another."""

    file: Path
    line: int
    module: str
    imported: str

    def __str__(self) -> str:
        """Returns the place and the arrow, as a failing test shows them."""
        return f"{self.file}:{self.line}: {self.module} -> {self.imported}"


def blanked(text: str, start: int, end: int) -> str:
    """Returns Rust with a stretch of it replaced by spaces, its lines kept."""
    return text[:start] + re.sub(r"\S", " ", text[start:end]) + text[end:]


def code_of(text: str) -> str:
    """Returns Rust without comments, texts and what is compiled for tests alone."""
    code = NO_CODE.sub(lambda found: blanked(found[0], 0, len(found[0])), text)
    while found := TEST.search(code):
        end = found.end()
        depth = int(code[end - 1] == "{")
        while depth:
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        code = blanked(code, found.start(), end)
    return code


def first_names(path: str) -> list[str]:
    """Returns the names a path goes on with: one, or the first of each path of a group."""
    if not path.startswith("{"):
        return [path]
    inner = path[1:-1]
    while (flat := re.sub(r"\{[^{}]*\}", "", inner)) != inner:
        inner = flat
    return re.findall(r"(?:^|,)\s*(\w+)", inner)


def imports_of(file: Path, text: str) -> Iterator[Import]:
    """Yields the imports by which a file of the core names other modules of it."""
    parts = file.with_suffix("").parts
    # `mod.rs` is the module of its folder.
    module = parts[:-1] if parts[-1] == "mod" else parts
    code = code_of(text)
    for found in PATH.finditer(code):
        up = (found[1] or "").count("super")
        # `super` leads to another module only if it goes up to the root of the crate.
        if up and up < len(module):
            continue
        for name in first_names(found[2]):
            if name != module[0]:
                yield Import(file, code.count("\n", 0, found.start()) + 1, module[0], name)


def upward(found: Iterator[Import]) -> list[str]:
    """Returns the imports that do not lead to a lower layer."""
    place = {name: index for index, name in enumerate(LAYERS)}
    return [
        str(one)
        for one in found
        if place.get(one.imported, len(LAYERS)) >= place.get(one.module, -1)
    ]


def core_files() -> list[Path]:
    """Returns the files of the core, those of tests aside."""
    return [
        path
        for path in sorted(CORE.rglob("*.rs"))
        if path.name not in ("lib.rs", "tests.rs") and not path.name.endswith("_tests.rs")
    ]


def test_modules_of_the_core_import_only_lower_ones() -> None:
    found = [
        one
        for path in core_files()
        for one in imports_of(path.relative_to(CORE), path.read_text("utf-8"))
    ]
    assert len(found) > 200, "the imports are no longer found"
    wrong = upward(iter(found))
    assert not wrong, "imports upward, in rust/core:\n" + "\n".join(wrong)


def test_every_module_of_the_core_has_a_layer() -> None:
    declared = re.findall(r"^pub mod (\w+);", (CORE / "lib.rs").read_text("utf-8"), re.MULTILINE)
    assert sorted(declared) == sorted(LAYERS)
    assert {path.relative_to(CORE).with_suffix("").parts[0] for path in core_files()} == {*LAYERS}


@pytest.mark.parametrize(
    ("rust", "wrong"),
    [
        ("use crate::plan::Plan;", ["read/a.rs:1: read -> plan"]),
        ("use crate::error::Result;\nuse crate::job::Job;", ["read/a.rs:2: read -> job"]),
        (
            "use crate::{\n    error::{Error, Result},\n    spool::{Key, Keys},\n};",
            ["read/a.rs:1: read -> spool"],
        ),
        ("fn f() { super::super::write::g() }", ["read/a.rs:1: read -> write"]),
        ("fn f<'a>(x: &'a str) { crate::mask::g(x, '\"') }", ["read/a.rs:1: read -> mask"]),
        ("use crate::nowhere::X;", ["read/a.rs:1: read -> nowhere"]),
        ("use crate::read::Lines;\nuse super::Lines;\nuse crate::pack;", []),
        ('/// As `crate::write` does.\n// crate::write\nfn f() { g("crate::write") }', []),
        ("#[cfg(test)]\nmod tests {\n    use crate::write::X;\n    fn f() {}\n}", []),
        ("#[cfg(test)]\nuse crate::write::X;\nuse crate::error::Y;", []),
    ],
)
def test_an_import_upward_is_found(rust: str, wrong: list[str]) -> None:
    assert upward(imports_of(Path("read/a.rs"), rust)) == wrong


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the full name of everything a Python file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_trainer_never_imports_the_extension() -> None:
    found = [
        (path.relative_to(ROOT), line, name)
        for path in sorted((ROOT / "python" / "sabitrain").rglob("*.py"))
        for line, name in imported_names(path)
    ]
    assert any(name == "sabiprep.dataset.open_dataset" for _, _, name in found)
    wrong = [
        f"{path}:{line}: sabitrain -> {name}"
        for path, line, name in found
        if name.startswith("sabiprep._core")
    ]
    assert not wrong, "\n".join(wrong)
