"""What a library must leave as it found it: DESIGN.md's contract of no global state."""

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import normal, seeded

import probcl as pcl

# Run in a fresh interpreter. Libraries that come with probcl are imported first, so that a change is probcl's own.
IMPORT_AND_COMPARE = """
    import logging, pkgutil, random, sys, warnings
    import matplotlib, numpy, pyro, safetensors, sklearn, torch, torch.distributions
    import pyro.distributions, pyro.infer, rich.progress  # rich draws from `random` as it is imported
    sys.path.insert(0, {tests!r})
    from conftest import global_state

    def state():
        loggers = {{
            name: (list(logger.handlers), logger.level, logger.propagate)
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and (logger.handlers or name.startswith(("probcl", "pyro")))
        }}
        return global_state() | {{
            "random": random.getstate(),
            "numpy random": str(numpy.random.get_state()),
            "torch random": torch.get_rng_state().tolist(),
            "filters": list(warnings.filters),
            "showwarning": warnings.showwarning,
            "loggers of probcl and pyro": {{k: v for k, v in loggers.items() if k.startswith(("probcl", "pyro"))}},
            "matplotlib": (dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules),
            "hooks": (sys.excepthook, sys.displayhook),
        }}

    before = state()
    import probcl
    for module in pkgutil.walk_packages(probcl.__path__, "probcl."):
        __import__(module.name)
    after = state()
    print([name for name in before if before[name] != after[name]])
"""


def test_importing_every_module_changes_nothing() -> None:
    script = textwrap.dedent(IMPORT_AND_COMPARE).format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - the state that others' code may rely on
        "torch": torch.get_rng_state().tolist(),
    }


# Unchecked, because beartype draws from `random` to choose which item of a list it checks.
@pytest.mark.usefixtures("unchecked")
def test_using_the_package_changes_nothing(process_state: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    model = pcl.BimodalModel(
        pcl.encoders.MLP(4, 3), pcl.encoders.Label(3, 3), pcl.Cosine(), 0.1, learn_temperature=True
    )
    u, v = normal(12, 4).float(), torch.arange(12) % 3
    before, before_random = process_state(), random_states()

    for loss in (pcl.ConditionalLoss(), pcl.JointLoss()):
        loss(model.scores(u, v)).backward()
    scores = model.scores(u, v)
    scores.topk(2)
    scores.sample(5, generator=seeded())
    scores.normalized(0).weighted_sum(u, dim=0)
    prior = pcl.EmpiricalPrior(u)
    model.regauged("u", prior).u_given_v(prior).condition(v).log_prob(u)
    model.save(tmp_path)

    assert process_state() == before
    assert random_states() == before_random


@pytest.mark.usefixtures("unchecked")
def test_fitting_changes_nothing(process_state: Callable[[], dict[str, Any]]) -> None:
    model = pcl.BimodalModel(pcl.encoders.Linear(4, 2), pcl.encoders.Linear(3, 2))
    pairs = normal(40, 4).float(), normal(40, 3, seed=1).float()
    before, before_random = process_state(), random_states()
    pcl.fit(model, pairs, epochs=2, batch_size=16, seed=3, progress=False)
    assert process_state() == before
    assert random_states() == before_random
