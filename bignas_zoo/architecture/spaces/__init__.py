"""Published and shipped search spaces, each a literal table."""

from __future__ import annotations

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.spaces.imagenette import BIGNAS_IMAGENETTE
from bignas_zoo.architecture.spaces.photos import PHOTOS
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_MICRO, BIGNAS_PHOTO
from bignas_zoo.architecture.spaces.variants import variant
from bignas_zoo.errors import NotFoundError, nearest

__all__ = ["SPACES", "get_space", "published", "variant"]

_OWN = (BIGNAS, BIGNAS_IMAGENETTE, BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_PHOTO, BIGNAS_MICRO, PHOTOS)
#: The paper's space, and those that this project's recipes train.
SPACES: dict[str, SearchSpace] = {space.name: space for space in _OWN}


def published() -> dict[str, SearchSpace]:
    """Return spaces of other papers, by name, written down with their published figures; no recipe here trained one."""
    # Light commands need none of them, and are milliseconds faster without.
    from bignas_zoo.architecture.spaces import efficientnet_lite as lite
    from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS
    from bignas_zoo.architecture.spaces.mobilenets import MNASNET_A1, MOBILENET_V2
    from bignas_zoo.architecture.spaces.nss import NSS
    from bignas_zoo.architecture.spaces.once_for_all import ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE

    sizes = (lite.EFFICIENTNET_LITE0, lite.EFFICIENTNET_LITE1, lite.EFFICIENTNET_LITE2, lite.EFFICIENTNET_LITE4)
    spaces = (ATTENTIVENAS, ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE, *sizes, NSS, *MOBILENET_V2, *MNASNET_A1)
    return {space.name: space for space in spaces}


def get_space(name: str) -> SearchSpace:
    """Return a search space by name, of `SPACES` or `published`.

    Raises:
        NotFoundError: no space has this name.
    """
    if name in SPACES:
        return SPACES[name]
    known = {**published(), **SPACES}
    if name not in known:
        raise NotFoundError(f"search space '{name}': not known. {nearest(name, known)}")
    return known[name]
