"""A network: a child of a search space, or a literal list of blocks, as an imported model is.

Both know their resolution, classes and batch-norm epsilon, have a plan (`bignas_zoo.architecture.plan.plan`), and go to
JSON and back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from bignas_zoo.architecture.blocks import KINDS, SHORTCUTS, STAGE_KINDS, Block
from bignas_zoo.architecture.checks import MOST_BLOCKS, at_least, one_of
from bignas_zoo.architecture.forms import ACTIVATIONS, PADDINGS, POOLINGS, SqueezeExcite
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import SpaceError

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
#: What a network may be called: models, files and repositories are called so.
NETWORK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
#: Far above any network; what a file of others asks for must not take the machine's memory.
MOST_KERNEL, MOST_PARAMETERS = 31, 1 << 30
NUMBERS = ("size_in", "size_out", "cin", "mid", "cout", "kernel")


@dataclass(frozen=True)
class BlockList:
    """A network that is no child of a space, written down block by block.

    Attributes:
        name: short name, e.g. ``resnet20``.
        resolution: input size in pixels.
        classes: number of output classes.
        blocks: in order; the first takes an RGB image, the last is the classifier.
        bn_epsilon: of every batch norm.
    """

    name: str
    resolution: int
    classes: int
    blocks: tuple[Block, ...]
    bn_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NETWORK_NAME.fullmatch(self.name):
            raise SpaceError(
                f"network {self.name!r:.80}: its name must be 1 to 100 letters, digits, '.', '_', '+', '-'."
            )
        at_least("resolution", self.resolution, 1)
        at_least("classes", self.classes, 2)
        if not isinstance(self.bn_epsilon, float) or not 0 < self.bn_epsilon < 1:
            raise SpaceError(f"bn_epsilon: must be a number between 0 and 1, got {self.bn_epsilon!r}.")
        if not 2 <= len(self.blocks) <= MOST_BLOCKS:
            raise SpaceError(f"network '{self.name}': must have 2 to {MOST_BLOCKS} blocks, got {len(self.blocks)}.")
        for block in self.blocks:
            _check_block(block)
        _check_chain(self)

    @property
    def model_name(self) -> str:
        """What a model of it is called."""
        return self.name

    @property
    def bn_variance(self) -> str:
        """Which variance calibration keeps, see `SearchSpace`."""
        return "population"

    def to_json(self) -> dict[str, Any]:
        """Return the network as JSON-ready data; `BlockList.from_json` reverses it."""
        return {**asdict(self), "blocks": [block_to_json(block) for block in self.blocks]}

    @staticmethod
    def from_json(data: Any) -> BlockList:
        """Rebuild a network from `to_json` data.

        Raises:
            SpaceError: a key is missing or unknown, a value is not allowed, or the blocks do not join up.
        """
        try:
            if len(data["blocks"]) > MOST_BLOCKS:
                raise TypeError(f"{len(data['blocks']):,} blocks")
            return BlockList(**{**data, "blocks": tuple(_block(entry) for entry in data["blocks"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise SpaceError(f"network: not a valid list of blocks ({error}).") from error


#: Anything with a plan.
Network = ChildSpec | BlockList


def block_to_json(block: Block) -> dict[str, Any]:
    """Return a block as JSON-ready data; what is as usual is left out."""
    usual = {f.name: f.default for f in fields(Block) if f.default is not MISSING}
    return {key: value for key, value in asdict(block).items() if key not in usual or usual[key] != value}


def _block(entry: Mapping[str, Any]) -> Block:
    form = entry.get("squeeze_excite")
    return Block(**{**entry, "squeeze_excite": SqueezeExcite(**form) if form else None})


def _check_block(block: Block) -> None:
    """Refuse a block with a value that no kind of block may have."""
    if not isinstance(block.name, str) or not NAME.fullmatch(block.name) or len(block.name) > 64:
        raise SpaceError(f"block {block.name!r:.80}: its name must be lower-case words with dots between.")
    where = f"block '{block.name}'"
    one_of(f"{where}: kind", block.kind, KINDS)
    one_of(f"{where}: stride", block.stride, (1, 2))
    one_of(f"{where}: padding", block.padding, PADDINGS)
    one_of(f"{where}: pooling", block.pooling, POOLINGS)
    one_of(f"{where}: bias", block.bias, (False, True))
    one_of(f"{where}: activation", block.activation, ("softmax",) if block.kind == "classifier" else ACTIVATIONS)
    for key in NUMBERS:
        at_least(f"{where}: {key}", getattr(block, key), 1)
    for key in ("stage", "layer"):
        at_least(f"{where}: {key}", getattr(block, key), -1)
    if block.kernel % 2 == 0 or block.kernel > MOST_KERNEL:
        raise SpaceError(f"{where}: kernel: must be odd and at most {MOST_KERNEL}, got {block.kernel}.")
    _check_form(block, where)
    if block.size_out != -(-block.size_in // block.stride):
        raise SpaceError(f"{where}: {block.size_in} px with stride {block.stride} do not make {block.size_out} px.")


def _check_form(block: Block, where: str) -> None:
    """Refuse parts that a block's kind does not have."""
    of_stage = block.kind in STAGE_KINDS
    one_of(f"{where}: shortcut", block.shortcut, SHORTCUTS if of_stage else ("none",))
    expands = {"mbconv": (False, True), "pooled_head": (True,)}
    one_of(f"{where}: expands", block.expands, expands.get(block.kind, (False,)))
    if block.squeeze_excite and block.kind != "mbconv":
        raise SpaceError(f"{where}: a block of kind '{block.kind}' has no squeeze-excite.")
    if block.transforms:
        raise SpaceError(f"{where}: transforms: only blocks of a supernet have them.")
    if not block.expands and block.mid != block.cin:
        raise SpaceError(f"{where}: mid: without an expansion it must be cin ({block.cin}), got {block.mid}.")


def _check_chain(network: BlockList) -> None:
    """Refuse blocks that do not join up to a network with the input and the classes it should have."""
    first, *_, last = blocks = network.blocks
    if (first.cin, first.size_in) != (3, network.resolution):
        raise SpaceError(f"network '{network.name}': its first block must take 3 channels of {network.resolution} px.")
    if last.kind != "classifier" or last.cout != network.classes:
        raise SpaceError(f"network '{network.name}': its last block must be a classifier of {network.classes} classes.")
    kinds = ["of a stage" if block.kind in STAGE_KINDS else block.kind for block in blocks[:-1]]
    inner = kinds[1:-1] if kinds[-1] in ("head", "pooled_head") else kinds[1:]
    if kinds[0] != "stem" or set(inner) - {"of a stage"}:
        raise SpaceError(
            f"network '{network.name}': must be a stem, blocks of kind {' or '.join(STAGE_KINDS)}, at most one head, "
            f"and a classifier, got {', '.join(block.kind for block in blocks)[:200]}."
        )
    parameters = sum(op.parameters for block in blocks for op in block.ops)
    if parameters > MOST_PARAMETERS:
        raise SpaceError(f"network '{network.name}': {parameters:,} parameters; it may have {MOST_PARAMETERS:,}.")
    if len({block.name for block in blocks}) < len(blocks):
        raise SpaceError(f"network '{network.name}': two blocks have one name.")
    for before, block in pairwise(blocks):
        if block.cin != before.cout or (block is not last and block.size_in != before.size_out):
            raise SpaceError(f"network '{network.name}': block '{block.name}' does not take what the one before gives.")
