"""Published and shipped search spaces, each a literal table."""

from __future__ import annotations

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.spaces.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2
from bignas_zoo.architecture.spaces.imagenette import BIGNAS_IMAGENETTE
from bignas_zoo.architecture.spaces.nss import NSS
from bignas_zoo.architecture.spaces.once_for_all import ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_MICRO, BIGNAS_PHOTO
from bignas_zoo.architecture.spaces.variants import variant
from bignas_zoo.errors import NotFoundError, nearest

__all__ = ["PUBLISHED", "SPACES", "get_space", "variant"]

_OWN = (BIGNAS, BIGNAS_IMAGENETTE, BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_PHOTO, BIGNAS_MICRO)
_OTHERS = (
    *(ATTENTIVENAS, ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE),
    *(EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2, NSS),
)
#: The paper's space, and those that this project's recipes train.
SPACES: dict[str, SearchSpace] = {space.name: space for space in _OWN}
#: Spaces of other papers, written down with their published figures; no recipe here has trained one.
PUBLISHED: dict[str, SearchSpace] = {space.name: space for space in _OTHERS}


def get_space(name: str) -> SearchSpace:
    """Return a search space by name, of `SPACES` or `PUBLISHED`.

    Raises:
        NotFoundError: no space has this name.
    """
    known = {**PUBLISHED, **SPACES}
    if name not in known:
        raise NotFoundError(f"search space '{name}': not known. {nearest(name, known)}")
    return known[name]
