"""Which engine trains, what it refuses, and what it is told by the environment."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from typing import Any

import pytest
from engine_parity import make_recipe

from bignas_zoo.errors import UsageError
from bignas_zoo.recipes.engines import choosing
from bignas_zoo.recipes.engines.tensorflow import choose_strategy, execution


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that says which libraries there are."""
    real = importlib.util.find_spec

    def only(*names: str) -> None:
        watched = ("tensorflow", "jax", "libtpu", "jax_plugins")
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda n, *a: (object() if n in names else None) if n in watched else real(n, *a),
        )

    return only


def test_tensorflow_trains_where_jax_sees_no_accelerator(installed: Any) -> None:
    installed("tensorflow", "jax")
    assert choosing.choose_engine("auto") == "tensorflow"
    assert choosing.choose_engine("jax") == "jax"


def test_jax_trains_where_it_is_alone_or_has_an_accelerator(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("jax")
    assert choosing.choose_engine("auto") == "jax"
    installed("tensorflow", "jax", "jax_plugins")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert choosing.choose_engine("auto") == "jax"
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert choosing.choose_engine("auto") == "tensorflow"


@pytest.mark.parametrize(
    ("wanted", "there", "hint"), [("jax", "tensorflow", r"bignas-zoo\[jax\]"), ("tensorflow", "jax", "install")]
)
def test_a_missing_library_is_named_with_its_install(installed: Any, wanted: str, there: str, hint: str) -> None:
    installed(there)
    with pytest.raises(UsageError, match=f"engine '{wanted}'.*{hint}"):
        choosing.choose_engine(wanted)


def test_another_backend_in_the_same_process_is_refused() -> None:
    choosing.use_backend("tensorflow")  # the one the tests run on
    with pytest.raises(UsageError, match="KERAS_BACKEND=jax"):
        choosing.use_backend("jax")


@pytest.mark.parametrize(
    ("environment", "name", "index"),
    [
        ({}, "tensorflow", 0),
        ({"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 1}})}, "tensorflow", 1),
        ({"JAX_PROCESS_ID": "3"}, "jax", 0),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "3"}, "jax", 3),
    ],
)
def test_the_host_is_known_before_devices_are(
    environment: dict[str, str], name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("TF_CONFIG", "JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert choosing.host_index(name) == index


def test_the_strategy_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert choose_strategy() == "single"
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}}))
    assert choose_strategy() == "single"
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
    assert choose_strategy() == "multi_worker"
    monkeypatch.setenv("TPU_NAME", "local")
    assert choose_strategy() == "tpu"


def test_forms_are_the_recipes_or_the_engines_own() -> None:
    recipe = make_recipe()
    assert vars(execution(recipe, "single")) == {
        "batch_norm": "fused", "depthwise": "native", "branch": "cond", "pack": 1,
    }  # fmt: skip
    assert vars(execution(recipe, "mirrored")) == {
        "batch_norm": "synchronised", "depthwise": "native", "branch": "where", "pack": 1,
    }  # fmt: skip
    explicit = dataclasses.replace(recipe, batch_norm="two_pass", depthwise="shifted", branch="where", pack=2)
    assert vars(execution(explicit, "single")) == {
        "batch_norm": "two_pass", "depthwise": "shifted", "branch": "where", "pack": 2,
    }  # fmt: skip


@pytest.mark.parametrize("field", [{"branch": "cond"}, {"batch_norm": "one_pass"}])
def test_replicas_refuse_what_they_cannot_compute(field: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="needs synchronised batch norms and branch 'where'"):
        execution(make_recipe(**field), "mirrored")
