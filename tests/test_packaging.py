"""What the wheel holds is what the tree holds: nothing forgotten, nothing from elsewhere."""

from __future__ import annotations

import configparser
import email
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from conftest import ROOT

import bignas_zoo

DATA_SUFFIXES = (".yaml", ".j2", ".json", ".safetensors", ".jsonl", ".jpg", ".csv")
NOT_SHIPPED = {"__pycache__", "build", "dist"}


def configuration() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def package_folders() -> dict[str, Path]:
    """Return the folder of each package that setup.cfg lists, by its package_dir map."""
    config = configuration()
    roots = dict(
        (part.strip() for part in line.split("=")) for line in config["options"]["package_dir"].strip().splitlines()
    )
    folders = {}
    for package in config["options"]["packages"].split():
        parent = max((r for r in roots if package == r or package.startswith(f"{r}.")), key=len)
        folders[package] = ROOT / roots[parent] / package.removeprefix(parent).strip(".").replace(".", "/")
    return folders


def top_folders() -> list[Path]:
    folders = package_folders().values()
    return [ROOT / name for name in sorted({folder.relative_to(ROOT).parts[0] for folder in folders})]


def tree_files() -> list[Path]:
    """Return every file under the packages' top folders that is code or data."""
    return sorted(
        path
        for top in top_folders()
        for path in top.rglob("*")
        if path.is_file() and NOT_SHIPPED.isdisjoint(path.relative_to(ROOT).parts)
    )


def is_data(path: Path) -> bool:
    return path.suffix in DATA_SUFFIXES or path.name in ("py.typed", "NOTICE")


def expected_wheel() -> set[str]:
    """Return the names that the tree's code and data should have in the wheel."""
    roots = {folder: package for package, folder in package_folders().items()}
    names = set()
    for path in tree_files():
        if path.suffix == ".py" or is_data(path):
            home = next(parent for parent in path.parents if parent in roots)
            names.add(f"{roots[home].replace('.', '/')}/{path.relative_to(home).as_posix()}")
    return names


def test_setup_cfg_lists_every_package() -> None:
    in_tree = {path.parent for path in tree_files() if path.suffix == ".py"}
    assert set(package_folders().values()) == in_tree


def test_every_package_has_an_init() -> None:
    missing = [name for name, folder in package_folders().items() if not (folder / "__init__.py").is_file()]
    assert missing == []


def test_packages_are_named_one_by_one() -> None:
    packages = configuration()["options"]["packages"]
    assert "find" not in packages
    assert len(packages.split()) == len(set(packages.split()))


def test_package_data_covers_every_data_file() -> None:
    folders = package_folders()
    covered = {
        path
        for package, patterns in configuration()["options.package_data"].items()
        for pattern in patterns.replace(",", " ").split()
        for path in folders[package].glob(pattern)
    }
    data = {path for path in tree_files() if is_data(path)}
    assert data
    assert {str(p.relative_to(ROOT)) for p in data - covered} == set()


def test_every_pattern_of_package_data_finds_a_file() -> None:
    folders = package_folders()
    idle = [
        f"{package}: {pattern}"
        for package, patterns in configuration()["options.package_data"].items()
        for pattern in patterns.replace(",", " ").split()
        if not any(folders[package].glob(pattern))
    ]
    assert idle == []


def test_no_files_of_unknown_kind_among_the_packages() -> None:
    odd = [str(p.relative_to(ROOT)) for p in tree_files() if p.suffix not in (".py", ".md", ".sh") and not is_data(p)]
    assert odd == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, without the network."""
    # Asked without importing them: importing setuptools replaces this process's distutils.
    if not {"pip", "setuptools"} <= {d.name for d in distributions()}:
        pytest.skip("needs pip and setuptools in this environment")
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in [*top_folders(), *(ROOT / n for n in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"))]:
        if path.is_dir():
            ignore = shutil.ignore_patterns(*NOT_SHIPPED, "*.egg-info")
            shutil.copytree(path, source / path.name, ignore=ignore)
        else:
            shutil.copy(path, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(output), str(source)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = output.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = expected_wheel()
    assert sorted(expected - names) == []
    assert sorted(names - expected) == []


@pytest.mark.slow
def test_the_wheel_holds_the_same_bytes(wheel: Path) -> None:
    roots = {package.replace(".", "/"): folder for package, folder in package_folders().items()}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            home = max((r for r in roots if name.startswith(f"{r}/")), key=len, default=None)
            if home is not None:
                assert archive.read(name) == (roots[home] / name.removeprefix(f"{home}/")).read_bytes()


@pytest.mark.slow
def test_the_wheels_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        (points,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
        scripts = archive.read(points).decode()
        assert any(n.endswith("LICENSE") for n in archive.namelist())
    assert (metadata["Name"], metadata["Version"]) == ("bignas-zoo", bignas_zoo.__version__)
    assert (metadata["License-Expression"] or metadata["License"]) == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    assert "bignas-zoo = bignas_zoo.cli.start:main" in scripts
    assert wheel.name == f"bignas_zoo-{bignas_zoo.__version__}-py3-none-any.whl"
