"""Files that a user names: another kind of file stays; devices and pipes stay what they are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from bignas_zoo.cli.main import main
from bignas_zoo.errors import LocalIOError
from bignas_zoo.files.outputs import write_output

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_file_is_made_and_one_of_its_kind_replaced(tmp_path: Path) -> None:
    for content in (PNG + b"first", PNG + b"second"):
        write_output(tmp_path / "a.png", content, ".png")
        assert (tmp_path / "a.png").read_bytes() == content
    (tmp_path / "empty").touch()
    write_output(tmp_path / "empty", b"---\nx", ".md")
    assert (tmp_path / "empty").read_bytes() == b"---\nx"


@pytest.mark.parametrize("there", [b"my notes", b"-", b"\x89PN", b"---x"])
def test_other_content_stays(tmp_path: Path, there: bytes) -> None:
    (tmp_path / "notes.md").write_bytes(there)
    with pytest.raises(LocalIOError, match="is not what this command writes, so it is not replaced"):
        write_output(tmp_path / "notes.md", b"---\ncard", ".md")
    assert (tmp_path / "notes.md").read_bytes() == there
    assert os.listdir(tmp_path) == ["notes.md"]


def test_a_read_only_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"---\nold")
    (tmp_path / "a.md").chmod(0o444)
    with pytest.raises(LocalIOError, match="is read-only"):
        write_output(tmp_path / "a.md", b"---\nnew", ".md")
    assert (tmp_path / "a.md").read_bytes() == b"---\nold"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.md").symlink_to(tmp_path / "there" / "b.md")
    for content in (b"---\none", b"---\ntwo"):
        write_output(tmp_path / "a.md", content, ".md")
        assert (tmp_path / "a.md").is_symlink()
        assert (tmp_path / "there" / "b.md").read_bytes() == content


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_output(tmp_path / "pipe", PNG, ".png")
    reader.join(10)
    assert got == [PNG]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("place", ["", "absent/a.md", "file/a.md", "a\0b"])
def test_a_place_that_cannot_be_written_to(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocalIOError, match="cannot be written"):
        write_output(tmp_path / place, b"---\n", ".md")
    assert os.listdir(tmp_path) == ["file"]


def test_a_card_written_to_a_device_leaves_the_device() -> None:
    before = os.stat("/dev/null")
    done = CliRunner().invoke(main, ["card", "bignas-cifar10-smallest", "--output", "/dev/null"])
    assert done.exit_code == 0, done.output
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
