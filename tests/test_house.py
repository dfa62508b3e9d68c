"""Rules of the house that the source shows: entries, lengths, words, and that the documents name what is there."""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from bignas_zoo.files import names

PACKAGE = ROOT / "bignas_zoo"
SHIPPED = [ROOT / name for name in ("bignas_zoo", "export", "recipes", "hub_cards")]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Endings that make another form of the same word: search, searching, searcher.
ENDINGS = re.compile(r"(ing|er|ers|es|s|e)$")


def entries() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if path.name != "__pycache__")


def words(entry: str) -> set[str]:
    return {ENDINGS.sub("", word) for word in entry.removesuffix(".py").strip("_").split("_")}


def test_the_package_has_few_entries_at_its_top() -> None:
    assert len(entries()) <= 17, entries()


def test_no_two_rooms_share_a_word() -> None:
    shared = [(a, b) for a, b in itertools.combinations(entries(), 2) if words(a) & words(b)]
    assert shared == []


@pytest.mark.parametrize("pair", [("search", "searching.py"), ("zoo", "zoo.py"), ("export", "exporter.py")])
def test_forms_of_one_word_are_told(pair: tuple[str, str]) -> None:
    assert words(pair[0]) & words(pair[1])


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for folder in SHIPPED
        for path in folder.rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_the_documents_that_are_read_first_are_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000
    assert len((ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines()) <= 120


def named_files(text: str) -> set[str]:
    """Return what ends like a source file among the words in backticks."""
    words = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
    return {word for word in words if re.fullmatch(r"\w[\w./-]*\.(py|sh|yaml|cfg|j2)", word)}


def exists(path: str) -> bool:
    """Return whether a path is there, from the root or a folder of shipped code on; a bare name may be anywhere."""
    folders = [*SHIPPED, ROOT / "tests", ROOT / "examples"]
    somewhere = (match for folder in folders if "/" not in path for match in folder.rglob(path))
    return any((folder / path).exists() for folder in [ROOT, *SHIPPED]) or any(somewhere)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_files_that_documents_name_exist(document: Path) -> None:
    assert sorted(path for path in named_files(document.read_text("utf-8")) if not exists(path)) == []


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\S+?)/?` \| (.*) \|$", text, re.MULTILINE))
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms | {"export", "recipes", "hub_cards"} <= set(rows)
    for room, holds in rows.items():
        place = next(place / room for place in (PACKAGE, ROOT) if (place / room).exists())
        assert [name for name in re.findall(r"`([\w/.]+\.(?:py|sh))`", holds) if not (place / name).exists()] == []


#: Packages of others, and names of files, that dotted words in docstrings and comments may begin or end with.
FOREIGN = {"concurrent", "importlib", "jax", "keras", "lax", "numpy", "os", "sys", "tensorflow", "tf", "threading"}
FILE_ENDINGS = {"bin", "json", "jsonl", "keras", "npz", "onnx", "py", "safetensors", "tflite", "txt", "yaml"}
SOURCES = {
    "bignas_zoo." * (folder.name != "bignas_zoo")
    + ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
    for folder in SHIPPED
    for path in folder.rglob("*.py")
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def said(path: Path) -> Iterator[str]:
    """Give the docstrings and comments of a file."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.endswith('"""')):
            yield token.string


def defines(module: str, names: list[str]) -> bool:
    """Return whether a module's source has all of these names, one within the other or not; none at all is fine."""
    tree = TREES[module]
    known = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    known |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return set(names) <= known


def resolves(word: str, module: str) -> bool:
    """Return whether a dotted word is a module of ours, something in one, or something of the module that says it."""
    parts = word.split(".")
    ends = [(".".join(parts[:length]), parts[length:]) for length in range(len(parts), 0, -1)]
    places = [(name, rest) for end, rest in ends for name in SOURCES if f".{name}".endswith(f".{end}")]
    here = {node.arg for node in ast.walk(TREES[module]) if isinstance(node, ast.arg)}
    here |= {node.id for node in ast.walk(TREES[module]) if isinstance(node, ast.Name)}
    return parts[0] in here or any(defines(name, rest) for name, rest in places)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_what_docstrings_and_comments_name_exists(module: str) -> None:
    words = {word for text in said(SOURCES[module]) for word in re.findall(r"`([a-z_]\w*(?:\.\w+)+)`", text)}
    weights = {word for word in words if re.match(r"stage\d", word)}
    ours = {w for w in words if w.split(".")[0] not in FOREIGN and w.split(".")[-1] not in FILE_ENDINGS} - weights
    assert sorted(word for word in ours if not resolves(word, module)) == []


#: Names that nothing else is called. A checkpoint has a manifest.json of its own.
OWN_NAMES = {
    text
    for constant, value in vars(names).items()
    if constant.isupper() and constant not in ("MANIFEST", "CARD")
    for text in (value if isinstance(value, tuple) else (value,))
    if "." in text
}


def test_the_name_of_a_file_is_written_once() -> None:
    written = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for folder in SHIPPED
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in OWN_NAMES and path != PACKAGE / "files" / "names.py"
    ]
    assert written == []


#: Words that say of a variable only that there is one.
VAGUE = {"found", "chosen", "there", "made"}


def local_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the parameters and the variables of the functions of a source, with their lines; no fields of classes."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.arg):
                    yield node.lineno, node.arg
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.lineno, node.id
                elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name:
                    yield node.lineno, node.name


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_local_variables_say_what_they_are(module: str) -> None:
    assert sorted({(line, name) for line, name in local_names(TREES[module]) if name in VAGUE}) == []


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    found = 1",
        "def f():\n    found: int = 1",
        "def f():\n    (a, *found) = 1, 2",
        "def f():\n    for found in (): pass",
        "def f():\n    with a() as found: pass",
        "def f():\n    return [found for found in ()]",
        "def f():\n    return (found := 1)",
        "def f():\n    try: pass\n    except OSError as found: pass",
        "def f(*, found): pass",
        "f = lambda *found: 1",
        "class A:\n    async def f(self, **found): pass",
    ],
)
def test_every_way_to_name_a_variable_is_seen(code: str) -> None:
    assert "found" in {name for _, name in local_names(ast.parse(code))}


@pytest.mark.parametrize("code", ["class A:\n    found: int = 1", "def f(a):\n    a.found = g(found=a.found)"])
def test_fields_may_have_any_name(code: str) -> None:
    assert "found" not in {name for _, name in local_names(ast.parse(code))}
