"""Every slice that a public function gives is a `bignas_zoo.Slice`, which can be pushed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_fixtures import REPO, push
from hub_fixtures import hub as hub
from hub_fixtures import slice_folder as slice_folder
from hub_fixtures import stand_ins as stand_ins
from hub_fixtures import tiny_bundle as tiny_bundle
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.tasks.slices import find
from bignas_zoo.zoo import registry
from bignas_zoo.zoo.slice import Slice


def test_slices_of_lists_and_families() -> None:
    family = bz.get_family("bignas-cifar10")
    everywhere = [*bz.list_slices(), *family.slices, family.find("s"), find("bignas-cifar10-s")]
    assert {type(slice_) for slice_ in everywhere} == {bz.Slice}


def test_slices_of_the_hub_and_of_folders(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path, tmp_path: Path
) -> None:
    push(tiny_bundle)
    everywhere = [
        bz.get(f"hf://{REPO}", output=tmp_path / "out").slice,
        bz.Slice.from_pretrained(REPO),
        bz.Slice.from_pretrained(str(slice_folder)),
        find(slice_folder),
    ]
    assert {type(slice_) for slice_ in everywhere} == {bz.Slice}
    assert {slice_.name for slice_ in everywhere} == {"tiny-s"}


def test_a_public_slice_is_the_slice_of_the_zoo_and_knows_its_cost() -> None:
    slice_ = registry.list_slices("bignas-cifar10")[0]
    macs = slice_.macs
    public = bz.Slice.of(slice_)
    assert vars(public)["macs"] == macs
    assert public.to_json() == slice_.to_json()
    assert bz.Slice.of(public) is public


@pytest.mark.parametrize("name", ["push_to_hub", "from_pretrained"])
def test_the_zoo_itself_cannot_reach_the_hub(name: str) -> None:
    assert not hasattr(Slice, name)
    assert callable(getattr(bz.Slice, name))
