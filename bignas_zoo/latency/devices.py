"""Which devices there are: shipped tables, and the user's own."""

from __future__ import annotations

import os
from pathlib import Path

from bignas_zoo.errors import IntegrityError, NotFoundError, nearest
from bignas_zoo.latency.files import read_table
from bignas_zoo.latency.table import DeviceTable

SHIPPED = Path(__file__).parents[1] / "data" / "devices"
SUFFIX = ".json"


def own_folder() -> Path:
    """Return where the user's tables lie: ``BIGNAS_ZOO_DEVICES``, else ``bignas-zoo/devices`` in the user's data.

    Not the cache: what took 20 minutes to measure must outlive a cleared one.
    """
    override = os.environ.get("BIGNAS_ZOO_DEVICES")
    if override:
        return Path(override).expanduser()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "bignas-zoo" / "devices"


def list_devices() -> dict[str, Path]:
    """Return the names of all devices and their files; one's own table hides a shipped one of the same name."""
    tables = {path.stem: path for folder in (SHIPPED, own_folder()) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    return dict(sorted(tables.items()))


def find_device(name: str | Path) -> DeviceTable:
    """Return a device's table.

    Args:
        name: of a device; or the path of a table: what ends in ``.json``, has a slash, or is there.

    Raises:
        NotFoundError: no such device; the message lists them and names the nearest.
        IntegrityError: its file is damaged, or holds another name than its own.
        LocalIOError: its file cannot be read.
    """
    known = list_devices()
    if str(name).endswith(SUFFIX) or (str(name) not in known and (os.sep in str(name) or os.path.exists(name))):
        return read_table(Path(name))
    if str(name) not in known:
        raise NotFoundError(unknown(str(name), known))
    table = read_table(known[str(name)])
    if table.name != str(name):
        raise IntegrityError(
            f"{known[str(name)]}: the table calls itself '{table.name}'. Rename the file or the table."
        )
    return table


def unknown(name: str, known: dict[str, Path]) -> str:
    """Return the message for a device that does not exist."""
    hint = nearest(name, known)
    listed = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
    return (
        f"there is no latency table for device '{name}'. {hint}{listed} Your own tables belong into {own_folder()}; "
        "`bignas-zoo profile` measures one."
    )
