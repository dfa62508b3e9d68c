"""Published and shipped search spaces, each a literal table."""

from __future__ import annotations

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.spaces.imagenette import BIGNAS_IMAGENETTE
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_MICRO, BIGNAS_PHOTO
from bignas_zoo.architecture.spaces.variants import variant
from bignas_zoo.errors import NotFoundError, nearest

__all__ = ["SPACES", "get_space", "variant"]

_ALL = (BIGNAS, BIGNAS_IMAGENETTE, BIGNAS_CIFAR10, BIGNAS_CIFAR10_LARGE, BIGNAS_PHOTO, BIGNAS_MICRO)
SPACES: dict[str, SearchSpace] = {space.name: space for space in _ALL}


def get_space(name: str) -> SearchSpace:
    """Return a search space by name.

    Raises:
        NotFoundError: no space has this name.
    """
    try:
        return SPACES[name]
    except KeyError:
        raise NotFoundError(f"search space '{name}': not known. {nearest(name, SPACES)}") from None
