"""Fixtures shared by the tests, and a guard that no test leaves the process changed."""

import logging
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np
import pyro
import pytest
import torch
from hypothesis import settings
from torch.distributions import Distribution

settings.register_profile("probcl", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("probcl")


def pytest_configure(config: pytest.Config) -> None:
    """Make the package's warnings errors; in pyproject.toml this would import probcl before jaxtyping can."""
    config.addinivalue_line("filterwarnings", "error::probcl.ProbclWarning")


def global_state() -> dict[str, Any]:
    """The switches of the process that a library has no business with, random states apart."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "distribution validation": Distribution._validate_args,
        "root handlers": [handler for handler in logging.root.handlers if "pytest" not in type(handler).__module__],
        "root level": logging.root.level,
        "numpy errors": np.geterr(),
        "numpy printing": np.get_printoptions(),
    }


@pytest.fixture
def process_state() -> Callable[[], dict[str, Any]]:
    """The function that reads the state of the process, to compare before and after."""
    return global_state


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start every test from the same seed, and fail it if it changes a switch of the process."""
    before = global_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    after = global_state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed, f"{request.node.nodeid} changed the state of the process: {changed}"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch off jaxtyping's checks, as they are for users, so that a test meets the package's own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: work as small as a test's only waits for the others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clean_parameters() -> Iterator[None]:
    """Begin and end with an empty store of Pyro's parameters."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(scope="session")
def arviz() -> ModuleType:
    """ArviZ, without the word about its next version that it has on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")
