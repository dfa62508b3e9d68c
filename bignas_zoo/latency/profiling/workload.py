"""What a profile measures: blocks of a space, networks that are fitted to, and others to check the table on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.sampling import choose, mutate, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.latency import BlockKey, DeviceTable
from bignas_zoo.latency.coverage import thinned_blocks

#: Part of the choices in which a child near the smallest or biggest one differs from it.
NEAR = 0.2


@dataclass(frozen=True)
class Workload:
    """What to measure.

    Attributes:
        space: whose blocks.
        most_blocks: measure no more than about so many; the others are interpolated.
        fit: networks that overhead and scale are fitted to.
        networks: other networks that the table is checked on.
        seed: of the random networks.
    """

    space: SearchSpace
    most_blocks: int = 300
    fit: int = 30
    networks: int = 100
    seed: int = 0

    def blocks(self) -> dict[BlockKey, Block]:
        """Return the blocks to measure."""
        return thinned_blocks(self.space, self.most_blocks)

    def children(self) -> tuple[ChildSpec, ...]:
        """Return different children: those to fit, then those to check, which are uniformly random.

        Half of those to fit are random too. The others are the smallest and the biggest child and some near them:
        uniform draws are of middle size, so a fit to them alone was 3 to 7 % off at the ends, where slices are.
        """
        random = self._different(
            lambda turn: uniform_child(self.space, ("profile", self.seed, turn)), self.fit + self.networks
        )
        known = set(random)
        near = self._different(self._near_an_end, self.fit - self.fit // 2, known)
        fitted = [*near, *random[self.networks :]][: self.fit]
        return (*fitted, *random[: self.networks])

    def _different(
        self, draw: Callable[[int], ChildSpec], count: int, without: Collection[ChildSpec] = ()
    ) -> list[ChildSpec]:
        children: dict[ChildSpec, None] = {}
        for turn in range(50 * count):
            if len(children) == count:
                break
            child = draw(turn)
            if child not in without:
                children.setdefault(child)
        return list(children)

    def _near_an_end(self, turn: int) -> ChildSpec:
        end = self.space.biggest if turn % 2 else self.space.smallest
        if turn < 2:
            return end
        key = ("profile end", self.seed, turn)
        child = mutate(end, key, NEAR)
        return dataclasses.replace(child, resolution=choose(self.space.resolutions, (*key, "size")))

    def anchor(self) -> ChildSpec:
        """Return the child that is measured again with every group."""
        return uniform_child(self.space, ("profile anchor", self.seed))


def described(table: DeviceTable, workload: Workload, license: str) -> DeviceTable:
    """Return the table with what its file says of where it comes from."""
    space, blocks = workload.space, len(table.rows)
    sizes = ", ".join(map(str, space.resolutions))
    return dataclasses.replace(
        table,
        space=space.name,
        source="`bignas-zoo profile`, on the device",
        license=license,
        coverage=f"Children of '{space.name}' at {sizes} px: {blocks} blocks measured, the others interpolated.",
        note=f"Fitted to {workload.fit} children, half of them random, half near the smallest and the biggest. A "
        "block's time is that of the fastest round, less that of a file that computes almost nothing, and more or "
        "less by what it was found to take in a network.",
    )
