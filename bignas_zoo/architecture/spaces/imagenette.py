"""The BigNAS space at smaller inputs, for Imagenette (no paper)."""

from __future__ import annotations

import dataclasses

from bignas_zoo.architecture.spaces.bignas import BIGNAS

#: Blocks, widths and depths of BigNAS at 112 to 176 px: Imagenette's 9,469 images are stored at 176.
BIGNAS_IMAGENETTE = dataclasses.replace(
    BIGNAS,
    name="bignas-imagenette",
    source="BigNAS, arXiv 2003.11142, Table 1, at smaller inputs and 10 classes",
    classes=10,
    resolutions=(112, 128, 160, 176),
    unseen_resolutions=(120, 136, 144, 152, 168),
)
