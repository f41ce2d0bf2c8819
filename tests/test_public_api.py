import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

import probcl as pcl

MODULES = ["probcl", *sorted(module.name for module in pkgutil.walk_packages(pcl.__path__, "probcl."))]
every_module = pytest.mark.parametrize("name", MODULES)

# Promised by DESIGN.md, "The first lines a user writes", as far as this part of the package goes.
PROMISED = [
    "Alignment",
    "BimodalModel",
    "ConditionalLoss",
    "Cosine",
    "EmpiricalPrior",
    "InnerProduct",
    "JointLoss",
    "L2",
    "Scores",
    "WithPotentials",
    "classification",
    "diagnostics",
    "encoders",
    "fit",
    "gaussian",
    "register",
    "retrieval",
]


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public classes and functions that a module defines, and public members of the classes, without a docstring.

    A property may be documented among the attributes of its class.
    """
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__ or not callable(value):
            continue
        documentation = inspect.cleandoc(value.__doc__ or "")
        if not documentation:
            yield name
        for member, part in vars(value).items() if inspect.isclass(value) else ():
            told = inspect.getdoc(getattr(value, member)) or f"\n{member}\n    " in documentation
            if not member.startswith("_") and (callable(part) or isinstance(part, property)) and not told:
                yield f"{name}.{member}"


@pytest.mark.parametrize("name", PROMISED)
def test_what_was_promised_is_public(name: str) -> None:
    assert name in pcl.__all__


def test_all_names_exist_and_nothing_else_is_in_the_way() -> None:
    assert len(set(pcl.__all__)) == len(pcl.__all__)
    defined = {name for name, value in vars(pcl).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert defined == {name for name in pcl.__all__ if not inspect.ismodule(getattr(pcl, name))}


@every_module
def test_all_of_a_module_exists(name: str) -> None:
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", ()) if not hasattr(module, public)]
    assert not missing


@every_module
def test_everything_public_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert not list(undocumented(module))


@every_module
def test_the_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder()
    found = [test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert {"probcl.scores.Scores", "probcl.losses.ConditionalLoss", "probcl.model.BimodalModel"} <= set(found)


def test_the_first_lines_a_user_writes_run_as_printed() -> None:
    n_u, n_v, r = 5, 4, 2
    z_u, z_v, u_bank, v_query = torch.randn(8, r), torch.randn(8, r), torch.randn(20, n_u), torch.randn(3, n_v)

    loss = pcl.ConditionalLoss()(pcl.Scores(z_u, z_v, alignment=pcl.Cosine(), temperature=0.07))
    assert loss.shape == ()

    model = pcl.BimodalModel(
        pcl.encoders.Linear(n_u, r), pcl.encoders.MLP(n_v, r), alignment=pcl.InnerProduct(), temperature=1.0
    )
    d = model.u_given_v(pcl.EmpiricalPrior(u_bank)).condition(v_query)
    assert d.batch_shape == (3,)
    assert d.event_shape == (n_u,)
    assert d.sample((100,)).shape == (100, 3, n_u)


def test_is_typed() -> None:
    from importlib.resources import files

    assert (files("probcl") / "py.typed").is_file()
