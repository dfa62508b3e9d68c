"""Which published net that is not imported yet would be more accurate than a budget's choice, in one sentence."""

from __future__ import annotations

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.budget import Budget, amount
from bignas_zoo.errors import NotFoundError
from bignas_zoo.importers.sources import Published, Source, sources
from bignas_zoo.zoo import imported
from bignas_zoo.zoo.family import Family
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
    if home.name in imported.folders() and slice_.published:
        chosen_by = (
            f"Chosen by its makers' figure, {slice_.published['top1']:.1f} % on ImageNet, which is not measured here; "
            f"licence of its weights: {slice_.license}."
        )
    return " ".join(filter(None, (chosen_by, better_public(slice_, home, limits, predictor)))) or None


def better_public(slice_: Slice, home: Family, limits: Budget, predictor: LatencyPredictor) -> str | None:
    """Return a sentence on the most accurate net, by its makers' figures, that is within a budget and not imported."""
    if limits.of_microcontroller or not limits.upper:
        return None

    mine, here = expected_top1(slice_, home), imported.folders()
    rows = [
        (net.top1, source, net)
        for source in sources().values()
        if source.name not in here
        for net in source.nets
        if net.top1 is not None and net.top1 > mine
    ]
    macs = [limit for limit in limits.upper if limit.quantity == "macs"]
    for top1, source, net in sorted(rows, key=lambda row: -row[0]):
        if all(limit.allows(net.macs) for limit in macs) and _fits(source, net, limits, predictor):
            how = f"bignas-zoo import {source.name}"
            if source.url is None:
                how += " FILE"
            return (
                f"'{source.slice_name(net)}' ({amount('macs', net.macs)}, {top1:.1f} % by its makers, licence of its "
                f"weights: {source.license}) would be more accurate within {limits}: {how}"
            )
    return None


def _fits(source: Source, net: Published, limits: Budget, predictor: LatencyPredictor) -> bool:
    network, name = source.network(net), source.slice_name(net)
    form = {"spec": None, "blocks": network} if isinstance(network, BlockList) else {"spec": network}
    candidate = Slice(name, source.name, top1=None, top1_images=None, top1_source="", **form)  # type: ignore[arg-type]
    try:
        figures = {**predictor.figures(candidate, limits), "bytes": cost.weight_bytes(network)}
    except NotFoundError:
        return False
    return not limits.violations(figures)
