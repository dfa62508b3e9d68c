"""Which published net that is not imported yet would be more accurate than a budget's choice, in one sentence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.budget import Budget, amount
from bignas_zoo.errors import NotFoundError
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.importers.sources import Published, Source, sources
from bignas_zoo.zoo import imported
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.license import NONCOMMERCIAL
from bignas_zoo.zoo.selection import LatencyPredictor, expected_top1
from bignas_zoo.zoo.slice import Slice


def remark(slice_: Slice, home: Family, limits: Budget, predictor: LatencyPredictor) -> str | None:
    """Return by whose figure a slice was chosen, and what would be more accurate within the budget.

    Args:
        slice_: the choice, among the families of one task.
        home: its family.
        limits: the budget.
        predictor: of its latencies.
    """
    chosen_by = None
    if slice_.top1 is None and slice_.published is None and slice_.holdout_top1 is None:
        chosen_by = "Nobody has said how accurate it is; nothing else within the budget is known to be better."
    if home.name in imported.folders() and slice_.published:
        chosen_by = (
            f"Chosen by its makers' figure, {slice_.published['top1']:.1f} % on ImageNet, which is not measured here; "
            f"licence of its weights: {slice_.license}."
        )
    return " ".join(filter(None, (chosen_by, better_public(slice_, home, limits, predictor)))) or None


def better_public(slice_: Slice, home: Family, limits: Budget, predictor: LatencyPredictor) -> str | None:
    """Return a sentence on the most accurate nets, by their makers' figures, within a budget and not imported.

    It names the best of all; if its weights may not be used for money, or nobody has said, the best that may as well.
    """
    if limits.of_microcontroller or not limits.upper:
        return None
    ranked = _better(expected_top1(slice_, home), limits, predictor)
    better = list(itertools.islice(ranked, 1))
    if not better:
        return None
    if not _is_free(better[0][0]):
        free = (pair for pair in ranked if _is_free(pair[0]))
        better += itertools.islice(free, 1)
    texts = [
        f"'{source.slice_name(net)}' ({amount('macs', net.macs)}, {net.top1:.1f} % by its makers, licence of its "
        f"weights: {source.license}): bignas-zoo import {source.name}{'' if source.url else ' FILE'}"
        for source, net in better
    ]
    return f"More accurate within {limits} would be {'; or '.join(texts)}"


def _is_free(source: Source) -> bool:
    return source.license != UNKNOWN and not NONCOMMERCIAL.search(source.license)


def _better(mine: float, limits: Budget, predictor: LatencyPredictor) -> Iterator[tuple[Source, Published]]:
    """Give the nets above an accuracy that a budget allows, the most accurate first."""
    here = imported.folders()
    pairs = [
        (source, net)
        for source in sources().values()
        if source.name not in here
        for net in source.nets
        if net.top1 is not None and net.top1 > mine
    ]
    macs = [limit for limit in limits.upper if limit.quantity == "macs"]
    for source, net in sorted(pairs, key=lambda pair: -(pair[1].top1 or 0.0)):
        if all(limit.allows(net.macs) for limit in macs) and _fits(source, net, limits, predictor):
            yield source, net


def _fits(source: Source, net: Published, limits: Budget, predictor: LatencyPredictor) -> bool:
    network, name = source.network(net), source.slice_name(net)
    form = {"spec": None, "blocks": network} if isinstance(network, BlockList) else {"spec": network}
    candidate = Slice(name, source.name, top1=None, top1_images=None, top1_source="", **form)  # type: ignore[arg-type]
    try:
        figures = {**predictor.figures(candidate, limits), "bytes": cost.weight_bytes(network)}
    except NotFoundError:
        return False
    return not limits.violations(figures)
