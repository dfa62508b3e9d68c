"""Searches along fronts other than that of accuracy over MACs, against the true front of a small space."""

from __future__ import annotations

import pytest
from test_search import SMALL, accuracy, everything, figures

from bignas_zoo.search import rounds
from bignas_zoo.search.children import Measured
from bignas_zoo.search.coarse_to_fine import CoarseToFine, default_grid
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.front import nearest_on, pareto


@pytest.mark.parametrize("front", [("parameters", "top1"), ("top1", "parameters"), ("latency_ms@desk", "parameters")])
@pytest.mark.parametrize("name", ["coarse-to-fine", "evolution"])
def test_half_of_the_space_gives_most_of_any_front(name: str, front: tuple[str, str]) -> None:
    grid = default_grid(SMALL, 20).members(SMALL)
    method: rounds.Method = CoarseToFine(SMALL, grid, (), figures, 0, front=front)
    if name == "evolution":
        method = Evolution(SMALL, (), figures, 0, population=16, front=front)
    measured = rounds.search(method, rounds.each(accuracy), figures, children=190)
    truth = pareto((Measured(s, accuracy(s), "grid", figures(s)) for s in everything(SMALL)), *front)
    found = pareto(measured, *front)
    first, second = front

    def near(wanted: Measured) -> bool:
        """Return whether a found child is as good in one axis and within 5 % in the other."""
        signs = [(-1 if axis == "top1" else 1) for axis in front]
        return any(
            signs[0] * m.figures[first] <= signs[0] * wanted.figures[first] * (1 + signs[0] * 0.001)
            and signs[1] * m.figures[second] <= signs[1] * wanted.figures[second] * (1 + signs[1] * 0.05)
            for m in found
        )

    assert sum(map(near, truth)) >= 0.8 * len(truth)


def test_places_on_a_front_are_evenly_spread_over_its_logarithm() -> None:
    rows = [Measured(s, 1, "grid", {"macs": 1, "bytes": 10**i}) for i, s in enumerate(everything(SMALL)[:5])]
    assert [nearest_on(rows, p, "bytes") for p in (0, 0.1, 0.26, 0.5, 0.7, 1)] == [rows[i] for i in (0, 0, 1, 2, 3, 4)]
