"""Who imports whom, what an import loads, and what shipped code must not contain: read from the source."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conftest import ROOT
from latency_tables import table_of

import bignas_zoo
from bignas_zoo.architecture.spaces import SPACES
from bignas_zoo.latency import write_table

#: Folders of shipped code, and the packages they are.
PACKAGES = {
    "bignas_zoo": "bignas_zoo",
    "export": "bignas_zoo.export",
    "recipes": "bignas_zoo.recipes",
    "hub_cards": "bignas_zoo.hub_cards",
}
#: What each room may import besides itself. A room of a room is named with a dot and has rules of its own.
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "budget": {"errors"},
    "data": set(),
    "architecture": {"errors", "files"},
    "latency": {"errors", "files", "architecture", "data"},
    "runtime": {"errors", "files", "architecture"},
    "zoo": {"errors", "files", "budget", "architecture", "latency", "data"},
    "search": {"errors", "files", "budget", "architecture", "latency", "zoo"},
    "hub_cards": {"errors", "files", "budget", "architecture", "latency", "zoo", "search"},
    "models": {"errors", "files", "architecture", "runtime"},
    "export": {"errors", "files", "architecture", "runtime", "zoo", "models"},
    "recipes": {"errors", "files", "architecture", "runtime", "zoo", "models"},
    "importers": {"errors", "files", "architecture", "zoo", "models"},
    "latency.profiling": {"errors", "files", "architecture", "runtime", "latency", "models", "export"},
}
_LOW = {*MAY_IMPORT}
MAY_IMPORT["measure"] = _LOW - {"hub_cards"}
MAY_IMPORT["hub"] = {"errors", "files", "zoo", "hub_cards"}
_LOW = {*MAY_IMPORT} - {"hub"}
MAY_IMPORT["tasks"] = _LOW | {"measure", "hub"}
MAY_IMPORT["cli"] = _LOW | {"measure", "hub", "tasks", ""}
MAY_IMPORT[""] = {"errors", "files", "budget", "architecture", "zoo", "export", "tasks"}
#: Rooms without tensors: the standard library, click and themselves.
PURE = {"errors", "files", "budget", "data", "architecture", "latency", "zoo", "search"}
#: What a pure module may load all the same, inside a function: fitting a table needs more than reading one.
FITTED_WITH = {"bignas_zoo.latency.least_squares": {"numpy"}}
#: Packages without tensors that a room may use as well.
SMALL = {"files": ("filelock", "platformdirs")}
HEAVY = (
    "numpy",
    "keras",
    "tensorflow",
    "PIL",
    "yaml",
    "rich",
    "jinja2",
    "jax",
    "matplotlib",
    "safetensors",
    "huggingface_hub",
)


def modules() -> dict[str, Path]:
    """Return every shipped module and its file."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = [package, *(p for p in inner if p != "__init__")]
            found[".".join(parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in MODULES.items()}


def in_type_checking(tree: ast.Module) -> set[ast.AST]:
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    ]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


#: A module of ours that a string names: to `importlib`, or to a process of its own.
MODULE = re.compile(r"bignas_zoo(\.\w+)+")
#: What looks modules up for others, by tables of names that a test of its own reads.
LOOKS_UP = {"bignas_zoo", "bignas_zoo.cli.main"}


def imports(name: str) -> Iterator[tuple[str, bool, int]]:
    """Give each imported module, whether it is only for type checkers, and its line; strings that name one as well."""
    tree = TREES[name]
    typing_only = in_type_checking(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in typing_only, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else str(node.module)), node in typing_only, node.lineno
        elif name not in LOOKS_UP and (named := named_module(node)) not in (None, name):
            yield str(named), False, node.lineno  # type: ignore[attr-defined]


def named_module(node: ast.AST) -> str | None:
    """Return the module of ours that a string names, with dots or as a file such as ``PLACE/recipes/train.py``."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return None
    if MODULE.fullmatch(node.value):
        return node.value if node.value in MODULES else None
    script = re.fullmatch(r"(?:.*/)?((?:bignas_zoo|export|recipes|hub_cards)(?:/\w+)+)\.py", node.value)
    parts = script[1].replace("/", ".") if script else ""
    return next((m for m in (parts, f"bignas_zoo.{parts}") if m in MODULES), None)


def room(module: str) -> str:
    """Return the room of a module: the longest part of its name that has rules; "" for the package's own __init__."""
    parts = module.removeprefix("bignas_zoo").strip(".").split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in MAY_IMPORT), f"{parts[0]}: has no rules yet")


def test_all_shipped_code_is_found() -> None:
    for name in ("bignas_zoo", "bignas_zoo.architecture.space", "bignas_zoo.cli.main", "bignas_zoo.export.tflite"):
        assert name in MODULES
    assert {room(name) for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_downwards_only(name: str) -> None:
    wrong = [
        f"line {line}: {name} -> {target}"
        for target, _, line in imports(name)
        if target.split(".")[0] == "bignas_zoo" and room(target) not in {room(name), *MAY_IMPORT[room(name)]}
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imported_modules_of_ours_exist(name: str) -> None:
    missing = [
        f"line {line}: {target}"
        for target, _, line in imports(name)
        if target.split(".")[0] == "bignas_zoo" and target not in MODULES
    ]
    assert missing == []


def test_no_circle_of_imports_at_load_time() -> None:
    top = {
        name: {
            target
            for target, typing_only, line in imports(name)
            if target in MODULES and not typing_only and line in top_level_lines(name)
        }
        for name in MODULES
    }
    assert circles(top, ignoring={"bignas_zoo"}) == set()


def test_no_circle_of_files_imports_inside_functions_and_for_types_counted() -> None:
    graph = {name: {target for target, _, _ in imports(name) if target in MODULES} for name in MODULES}
    assert circles(graph, ignoring={"bignas_zoo"}) == set()


def circles(graph: Mapping[str, set[str]], ignoring: set[str]) -> set[str]:
    """Return the modules that are in a circle of imports, each of which can be reached from itself."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        ready = set(graph[name])
        while ready:
            seen |= ready
            ready = {target for source in ready for target in graph[source]} - seen
        return seen

    graph = {name: targets - ignoring - {name} for name, targets in graph.items()}
    return {name for name in graph if name in reached(name)}


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}, ignoring=set()) == {"b", "c"}


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("bignas_zoo.cli.start", "bignas_zoo.cli.start"),
        ("recipes/train.py", "bignas_zoo.recipes.train"),
        ("../bignas_zoo/cli/start.py", "bignas_zoo.cli.start"),
        ("bignas_zoo/slice/2", None),
        ("bignas-zoo", None),
    ],
)
def test_a_string_that_names_a_module_is_an_edge(text: str, module: str | None) -> None:
    assert named_module(ast.Constant(text)) == module


def top_level_lines(name: str) -> set[int]:
    return {node.lineno for node in TREES[name].body if isinstance(node, ast.Import | ast.ImportFrom)}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_top_level_folders_are_never_imported_by_their_bare_name(name: str) -> None:
    bare = [target for target, _, _ in imports(name) if target.split(".")[0] in ("export", "recipes", "hub_cards")]
    assert bare == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda p: p.name)
def test_tests_use_the_installed_names_as_well(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert [n for n in names if n.split(".")[0] in ("export", "recipes", "hub_cards")] == []


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in PURE))
def test_the_pure_level_imports_the_standard_library_and_click_only(name: str) -> None:
    allowed = {*sys.stdlib_module_names, "click", "bignas_zoo", *SMALL.get(room(name), ())}
    others = [(target, line) for target, _, line in imports(name) if target.split(".")[0] not in allowed]
    assert {target for target, _ in others} == FITTED_WITH.get(name, set())
    assert not {line for _, line in others} & top_level_lines(name)


def loaded_by(code: str, *heavy: str) -> tuple[str, list[str]]:
    """Run code in a new interpreter; return its stdout and which of the packages it loaded."""
    report = (
        "import atexit, sys\n"
        f"atexit.register(lambda: sys.stderr.write('LOADED ' + ' '.join(h for h in {heavy!r} if h in sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", report + code], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    marker = result.stderr.rindex("LOADED")
    return result.stdout, result.stderr[marker:].split()[1:]


@pytest.mark.parametrize("name", ["numpy_forward", "slicing", "weights", "preprocess", "folding", "active"])
def test_models_without_tensors_of_a_framework_load_none(name: str) -> None:
    out, loaded = loaded_by(f"import bignas_zoo.models.{name}", "keras", "tensorflow", "jax")
    assert (out, loaded) == ("", [])


def test_the_report_of_loaded_packages_works() -> None:
    assert loaded_by("import yaml", "yaml", "rich") == ("", ["yaml"])


def test_importing_the_package_loads_nothing_heavy() -> None:
    out, loaded = loaded_by("import bignas_zoo; print(bignas_zoo.get_family('bignas-imagenet').name)", *HEAVY)
    assert out == "bignas-imagenet\n"
    assert loaded == []


FAMILY = str(ROOT / "bignas_zoo" / "data" / "families" / "bignas-cifar10")


@pytest.mark.parametrize(
    "command",
    [["list", "--json"], ["list"], ["show", "bignas-m", "--json"], ["--help"], ["curves", FAMILY, "--json"]],
)
def test_light_commands_load_no_tensors(command: list[str]) -> None:
    code = f"import sys; sys.argv = ['bignas-zoo', *{command!r}]\nfrom bignas_zoo.cli.main import main\nmain()"
    out, loaded = loaded_by(code, "numpy", "keras", "tensorflow", "jax")
    assert loaded == []
    if "--json" in command:
        assert json.loads(out)["schema"].startswith("bignas-zoo/")
    else:
        assert "MACs" in out


@pytest.mark.parametrize(
    "command",
    [
        ["devices", "--json"],
        ["devices", "xeon-6130-pytorch", "--json"],
        ["list", "--device", "TABLE", "--json"],
        ["show", "bignas-cifar10-s", "--device", "TABLE", "--json"],
        ["latency", "bignas-cifar10-s", "--device", "TABLE", "--json"],
    ],
)
def test_commands_on_latency_load_no_tensors(command: list[str], tmp_path: Path) -> None:
    table = tmp_path / "phone.json"
    write_table(table, table_of(SPACES["bignas-cifar10"]))
    command = [str(table) if part == "TABLE" else part for part in command]
    test_light_commands_load_no_tensors(command)


def test_slices_are_made_proven_exported_and_verified_without_a_framework(tmp_path: Path) -> None:
    folder = str(tmp_path / "slice")
    commands = (
        ["get", "bignas-cifar10-f01", "--output", folder],
        ["export", folder, "--format", "tflite", "--format", "onnx", "--precision", "float32"],
        ["export", folder, "--precision", "float16"],
        ["verify", folder],
    )
    code = f"""
import os, sys
os.environ["BIGNAS_ZOO_CACHE"] = {str(tmp_path / "cache")!r}
from bignas_zoo.cli.main import main
for command in {commands!r}:
    sys.argv = ["bignas-zoo", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""
    out, loaded = loaded_by(code, "keras", "tensorflow", "jax", "tf2onnx", "matplotlib", "scipy")
    assert loaded == []
    assert "model.onnx" in out
    assert "model-float16.tflite" in out


def test_all_is_sorted_and_every_name_resolves() -> None:
    names = bignas_zoo.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        thing = getattr(bignas_zoo, name)
        assert callable(thing)
        assert thing.__module__.startswith("bignas_zoo.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'bignas_zoo' has no attribute 'nothing'"):
        _ = bignas_zoo.nothing


def test_all_holds_every_public_name_of_the_package() -> None:
    tree = TREES["bignas_zoo"]
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bignas_zoo")
        for alias in node.names
    }
    assert imported == set(bignas_zoo.__all__)


FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile", "torch", "runpy",
    "imp",    "code", "codeop", "pty", "commands", "pickletools", "jsonpickle", "ruamel",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "yaml.load", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "numpy.lib.format.read_array", "np.lib.format.read_array", "pandas.read_pickle",
    "importlib.util.spec_from_file_location", "importlib.machinery.SourceFileLoader",
}  # fmt: skip
#: Classes of PyYAML's loaders that stay within YAML's own types.
SAFE_LOADERS = {"SafeLoader", "yaml.SafeLoader", "CSafeLoader", "yaml.CSafeLoader"}
#: Methods that run code from data or unpack archives, whatever they belong to.
FORBIDDEN_METHODS = {
    "load_model",
    "model_from_json",
    "unpack_archive",
    "extractall",
    "extract",
    "unsafe_load",
    "full_load",
    "load_all",
    "enable_unsafe_deserialization",
    "deserialize_keras_object",
    "read_pickle",
    "exec_module",
    "load_module",
    "run_path",
    "run_module",
    "Lambda",
    "TFSMLayer",
}
FORBIDDEN_LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}


def offences(tree: ast.AST) -> list[str]:
    """Return what in the code would let data run code."""
    found = []
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.Import):
            found += [f"{line}: import {a.name}" for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            if str(node.module).split(".")[0] in FORBIDDEN_MODULES:
                found.append(f"{line}: from {node.module}")
            banned = FORBIDDEN_METHODS | FORBIDDEN_LOADERS
            found += [f"{line}: from {node.module} import {a.name}" for a in node.names if a.name in banned]
        elif isinstance(node, ast.Attribute):
            if node.attr in FORBIDDEN_METHODS or node.attr in FORBIDDEN_LOADERS:
                found.append(f"{line}: .{node.attr}")
        elif isinstance(node, ast.Name) and node.id in ("builtins", "__builtins__"):
            found.append(f"{line}: {node.id}")
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("globals()", "locals()", "vars()"):
            found.append(f"{line}: {ast.unparse(node.value)}[]")
        elif isinstance(node, ast.Call):
            found += [f"{line}: {problem}" for problem in call_offences(node)]
    return found


def call_offences(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    keywords = {k.arg: k.value for k in call.keywords}
    problems = []
    if name in FORBIDDEN_CALLS or name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "torch.")):
        problems.append(f"{name}()")
    if name in ("importlib.import_module", "import_module") and not is_ours(call):
        problems.append(f"{name}() of a name that is not written here")
    if "Loader" in keywords and ast.unparse(keywords["Loader"]) not in SAFE_LOADERS:
        problems.append(f"{name}(Loader=...)")
    if "weights_only" in keywords or "trust_remote_code" in keywords:
        problems.append(f"{name}(weights_only or trust_remote_code)")
    if "allow_pickle" in keywords and ast.unparse(keywords["allow_pickle"]) != "False":
        problems.append(f"{name}(allow_pickle=...)")
    if name in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
        problems.append(f"{name}() without allow_pickle=False")
    if None in keywords and name.startswith(("np.load", "numpy.load", "subprocess.")):
        problems.append(f"{name}(**...)")
    for unsafe, value in (("safe_mode", "True"), ("shell", "False"), ("extract", "False"), ("untar", "False")):
        if unsafe in keywords and ast.unparse(keywords[unsafe]) != value:
            problems.append(f"{name}({unsafe}=...)")
    return problems


def is_ours(call: ast.Call) -> bool:
    """Return whether a module's name is written in the source, or looked up in a constant of names there."""
    name = call.args[0] if call.args else None
    if isinstance(name, ast.Constant):
        return isinstance(name.value, str)
    written = ast.unparse(name) if name is not None else ""
    return written in IMPORTED_NAMES


#: Constants that `importlib.import_module` takes names of modules from; their values are literals, see below.
IMPORTED_NAMES = {"_HOMES[name]", "COMMANDS[cmd_name]"}


#: A .keras file is loaded once: when it was just made here, to prove it. Opcodes of pickles are named, none is run.
OWN_FILES = {"bignas_zoo.tasks.proving": [".load_model"], "bignas_zoo.importers.outline": ["import pickletools"]}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_code_from_data(name: str) -> None:
    assert [o.split(": ")[1] for o in offences(TREES[name])] == OWN_FILES.get(name, [])


def test_names_of_modules_that_are_looked_up_are_literals() -> None:
    for module, constant in (
        ("bignas_zoo", "_HOMES"),
        ("bignas_zoo.cli.main", "COMMANDS"),
    ):
        (value,) = (
            node.value
            for node in TREES[module].body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant
        )
        found = ast.literal_eval(value)
        names = [found] if isinstance(found, str) else list(found.values())
        assert all(name.startswith("bignas_zoo.") for name in names)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import tarfile",
        "eval('1')",
        "exec('1')",
        "keras.models.load_model(p)",
        "from keras.models import load_model",
        "yaml.load(t, yaml.SafeLoader)",
        "yaml.parse(t, Loader=yaml.Loader)",
        "yaml.unsafe_load(t)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "zipfile.ZipFile(p).extractall(q)",
        "shutil.unpack_archive(p)",
        "keras.utils.get_file(u, extract=True)",
        "subprocess.run(c, shell=True)",
        "os.system('x')",
        "import dill",
        "import torch",
        "torch.load(p, weights_only=True)",
        "from joblib import load",
        "os.execv(p, a)",
        "os.spawnl(m, p)",
        "subprocess.getoutput(c)",
        "subprocess.Popen(c, shell=flag)",
        "subprocess.run(c, **options)",
        "np.load(p, allow_pickle=flag)",
        "np.load(p, **options)",
        "numpy.load(file=p)",
        "yaml.compose(t, Loader=mine)",
        "keras.models.model_from_json(t)",
        "keras.config.enable_unsafe_deserialization()",
        "keras.saving.deserialize_keras_object(c)",
        "keras.saving.load_model(p, safe_mode=False)",
        "keras.layers.TFSMLayer(p)",
        "keras.layers.Lambda(f)",
        "importlib.import_module(data['module'])",
        "importlib.import_module(name)",
        "importlib.util.spec_from_file_location('x', p)",
        "spec.loader.exec_module(m)",
        "runpy.run_path(p)",
        "getattr(builtins, 'eval')(t)",
        "globals()['eval'](t)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
    ],
)
def test_the_search_for_offences_finds_them(code: str) -> None:
    assert len(offences(ast.parse(code))) >= 1


@pytest.mark.parametrize(
    "code",
    [
        "yaml.safe_load(t)",
        "np.load(p, allow_pickle=False)",
        "model.evaluate(x)",
        "re.compile('x')",
        "platform.system()",
        "json.loads(t)",
        "importlib.import_module('bignas_zoo.hub')",
        "yaml.compose(t, Loader=yaml.SafeLoader)",
        "subprocess.run([sys.executable, p], check=False)",
        "torch_like.loads(t)",
    ],
)
def test_the_search_for_offences_lets_safe_code_pass(code: str) -> None:
    assert offences(ast.parse(code)) == []


def test_the_root_folders_are_not_importable_packages_of_their_own() -> None:
    # `bignas_zoo.export` is the one name; a second copy of the module would have its own classes and caches.
    for folder, package in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).resolve() == (ROOT / folder / "__init__.py").resolve()
