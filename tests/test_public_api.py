import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest
import torch

import probcl as pcl
from probcl.assimilation.baselines import hyperparameters

MODULES = ["probcl", *sorted(module.name for module in pkgutil.walk_packages(pcl.__path__, "probcl."))]
ENTRY = re.compile(r"^   ~([\w.]+)$", re.MULTILINE)
REFERENCE = sorted((Path(__file__).parent.parent / "docs" / "reference").glob("*.rst"))
every_module = pytest.mark.parametrize("name", MODULES)

# Promised by DESIGN.md, "The first lines a user writes", as far as this part of the package goes.
PROMISED = [
    "Alignment",
    "BimodalModel",
    "ConditionalLoss",
    "Cosine",
    "DecoderPrior",
    "ConditionalMMDLoss",
    "EmpiricalPrior",
    "FGaussian",
    "FMICLLoss",
    "GaussianPrior",
    "InnerProduct",
    "JointLoss",
    "JointMMDLoss",
    "L2",
    "Laplace",
    "Power",
    "RINCELoss",
    "Scores",
    "SigmoidLoss",
    "SpectralLoss",
    "SumMixture",
    "WithPotentials",
    "assimilation",
    "classification",
    "diagnostics",
    "encoders",
    "f_mutual_information",
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


def public_objects() -> dict[str, object]:
    """Classes and functions in any `__all__`, and those that a module named in `probcl.__all__` defines without one."""
    modules = {name: importlib.import_module(name) for name in MODULES}
    names = {name: module.__all__ for name, module in modules.items() if hasattr(module, "__all__")}
    for module in filter(inspect.ismodule, (getattr(pcl, name) for name in pcl.__all__)):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        names.setdefault(module.__name__, [name for name in own if not name.startswith("_")])
    found = {f"{module}.{name}": getattr(modules[module], name) for module in names for name in names[module]}
    return {name: value for name, value in found.items() if inspect.isclass(value) or inspect.isroutine(value)}


def test_the_reference_has_every_public_class_and_function_once() -> None:
    public = public_objects()
    entries = [entry for page in REFERENCE for entry in ENTRY.findall(page.read_text())]
    listed = [attrgetter(entry)(pcl) for entry in entries]
    assert len({id(value) for value in listed}) == len(listed)
    missing = [name for name, value in public.items() if not any(value is other for other in listed)]
    assert not missing, f"add to docs/reference: {missing}"


@pytest.mark.parametrize("name", PROMISED)
def test_what_was_promised_is_public(name: str) -> None:
    assert name in pcl.__all__


def test_all_names_exist_and_nothing_else_is_in_the_way() -> None:
    assert len(set(pcl.__all__)) == len(pcl.__all__)
    assert all(hasattr(pcl, name) for name in pcl.__all__)  # each is imported only when it is asked for
    defined = {name for name, value in vars(pcl).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert defined == {name for name in pcl.__all__ if not inspect.ismodule(getattr(pcl, name))}


def test_type_checkers_are_told_of_the_same_names() -> None:
    stub = ast.parse(Path(pcl.__file__).with_suffix(".pyi").read_text())
    (told,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(told) == sorted(pcl.__all__)


def test_the_import_imports_nothing_heavy() -> None:
    code = "import sys, probcl; sys.exit(str({'torch', 'numpy', 'xarray', 'matplotlib'} & {*sys.modules} or ''))"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == ""


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Scorse"):
        _ = pcl.Scorse


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
def test_the_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    if module is not hyperparameters:  # its own example is of how well a covariance is fitted
        monkeypatch.setattr(hyperparameters, "_VIEWS", 4)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_every_public_class_and_function_has_an_example() -> None:
    missing = set()
    for name in MODULES:
        module = importlib.import_module(name)
        public = [getattr(module, entry) for entry in getattr(module, "__all__", ())]
        # Modules, constants and aliases such as `baselines.Advection` have no docstring of their own.
        defined = [value for value in public if inspect.isclass(value) or inspect.isfunction(value)]
        missing |= {f"{value.__module__}.{value.__name__}" for value in defined if ">>> " not in (value.__doc__ or "")}
    assert not missing


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder()
    found = [test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert {"probcl.scores.Scores", "probcl.losses.likelihood.ConditionalLoss", "probcl.model.BimodalModel"} <= set(
        found
    )


def test_the_first_lines_a_user_writes_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    n_u, n_v, r = 5, 4, 2
    z_u, z_v, u, v = torch.randn(8, r), torch.randn(8, r), torch.randn(40, n_u), torch.randn(40, n_v)
    u_bank, v_query, u_query, v_classes = torch.randn(20, n_u), torch.randn(3, n_v), torch.randn(6, n_u), v[:4]
    u_few, y_few = u[:8], torch.arange(8) % 4

    loss = pcl.ConditionalLoss()(pcl.Scores(z_u, z_v, alignment=pcl.Cosine(), temperature=0.07))
    assert loss.shape == ()
    loss = pcl.RINCELoss(q=0.5)(pcl.Scores(z_u, z_v, alignment=pcl.L2(), temperature=0.1, method="tiled"))
    assert loss.shape == ()
    loss = pcl.FMICLLoss("pearson", alpha=40)(pcl.Scores(z_u, z_v, alignment=pcl.FGaussian()))
    assert loss.shape == ()

    model = pcl.BimodalModel(
        pcl.encoders.Linear(n_u, r), pcl.encoders.MLP(n_v, r), alignment=pcl.InnerProduct(), temperature=1.0
    )
    history = pcl.fit(
        model, (u, v), loss=pcl.ConditionalLoss(lambda_u=2, lambda_v=0), epochs=2, batch_size=20, lr=1e-3, seed=0
    )
    assert len(history.loss) == 2
    before = model.log_ratio(u, v)
    model.save("model")
    model = pcl.BimodalModel.load("model")
    assert torch.equal(model.log_ratio(u, v), before)

    nu = model.u_given_v(pcl.EmpiricalPrior(u_bank))
    d = nu.condition(v_query)
    assert d.batch_shape == (3,)
    assert d.event_shape == (n_u,)
    draws = d.sample((100,))
    assert draws.shape == (100, 3, n_u)
    u_new = draws[0]
    assert d.log_prob(u_new).shape == d.log_ratio(u_new).shape == d.ess().shape == (3,)
    assert d.mode.shape == d.mean.shape == d.variance.shape == (3, n_u)

    values, indices = pcl.retrieval.Library(model, u=u_bank).topk(v_query, k=5)
    assert values.shape == indices.shape == (3, 5)
    with pytest.warns(pcl.ProbclWarning, match="re-?gauge"):  # fitted for u given v alone
        zero_shot = pcl.classification.zero_shot(model, labels=v_classes, prior=None)
    for probabilities in (zero_shot(u_query), pcl.classification.fine_tune(model, u_few, y_few)(u_query)):
        assert probabilities.shape == (6, 4)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(6))


def test_the_first_lines_on_gaussians_run_as_printed() -> None:
    n_u, n_v = 5, 4
    root = torch.randn(n_u + n_v, 20, dtype=torch.float64)
    C = root @ root.T / 20
    prior = pcl.GaussianPrior(torch.zeros(n_u).double(), C[:n_u, :n_u])
    assert prior.event_shape == (n_u,)

    best = pcl.gaussian.optimum(C, n_u, rank=3, alignment="inner", loss="conditional")
    assert (best.A.shape, best.B.shape, best.C_.shape) == ((n_u, n_v), (n_u, n_u), (n_v, n_v))
    assert best.law.mean_map_u_given_v.shape == (n_u, n_v)
    assert best.law.cov_u_given_v.shape == (n_u, n_u)
    assert best.loss < 0 < best.divergence


def test_is_typed() -> None:
    from importlib.resources import files

    assert (files("probcl") / "py.typed").is_file()
