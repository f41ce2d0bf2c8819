"""Messages about arrays say what came, without its contents, and what to do."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import probcl as pcl
from probcl.checks import as_tensor_hint, describe

U, V = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
ARRAY = np.zeros((40, 3))
TABLE = pd.DataFrame(ARRAY)
MAKE_ARRAY = "torch.as_tensor({}, dtype=torch.float32)"
MAKE_TABLE = "torch.tensor({}.to_numpy(), dtype=torch.float32)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (TABLE, "a DataFrame of shape (40, 3)"),
        (TABLE[0], "a Series of shape (40,)"),
        (xr.DataArray(ARRAY), "a DataArray of shape (40, 3)"),
        (ARRAY, "a NumPy array of float64 and shape (40, 3)"),
        (ARRAY.tolist(), "a list of 40"),
        ([1, 2], "[1, 2] of type list"),
        ("model", "'model' of type str"),
        (dict.fromkeys(range(1000)), "a dict of 1000"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_came_is_said_without_its_contents(value: object, said: str) -> None:
    assert describe(value) == said


def test_text_that_stands_for_a_value_is_short() -> None:
    class Long:
        def __repr__(self) -> str:
            return "long " * 1000

    assert len(describe(Long())) < 120


def test_the_remedies_are_ones() -> None:
    for value in (ARRAY, TABLE, ARRAY.tolist(), np.arange(3), TABLE[0]):
        call = as_tensor_hint("value", value).removeprefix("; use ").partition(", with")[0]
        assert torch.is_tensor(eval(call, {"torch": torch, "value": value}))
    assert as_tensor_hint("value", "text") == ""


def model() -> pcl.BimodalModel:
    return pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))


def classifier() -> object:
    labelled = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Label(2, 2))
    return pcl.classification.zero_shot(labelled, torch.arange(2))


CALLS: dict[str, tuple[Callable[..., object], str]] = {
    "fit": (lambda x: pcl.fit(model(), (x, V), epochs=1), "u"),
    "fit, validation": (lambda x: pcl.fit(model(), (U, V), validation=(U, x), epochs=1), "v"),
    "fit, alone": (lambda x: pcl.fit(model(), x, epochs=1), "u"),
    "prior": (lambda x: model().u_given_v(x), "prior"),
    "condition": (lambda x: model().u_given_v(pcl.EmpiricalPrior(U)).condition(x), "context"),
    "bank": (lambda x: pcl.EmpiricalPrior(x), "values"),
    "scores": (lambda x: model().scores(x, V), "u"),
    "topk": (lambda x: pcl.retrieval.Library(model(), u=U).topk(x, 3), "queries"),
    "classify": (lambda x: classifier()(x), "u"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("value", "remedy"), [(ARRAY, MAKE_ARRAY), (TABLE, MAKE_TABLE)], ids=["NumPy", "pandas"])
def test_arrays_of_other_libraries_are_refused_with_the_call_that_makes_a_tensor(
    call: str, value: object, remedy: str
) -> None:
    function, name = CALLS[call]
    with pytest.raises(TypeError) as caught:
        function(value)
    said = str(caught.value)
    assert remedy.format(name) in said
    assert f"got {describe(value)}" in said
    assert len(said) < 400


@pytest.mark.usefixtures("unchecked")
def test_a_tensor_in_place_of_a_prior_is_told_of_the_bank() -> None:
    with pytest.raises(TypeError, match=r"for a data bank use probcl\.EmpiricalPrior\(prior\)$"):
        model().u_given_v(U)


@pytest.mark.usefixtures("unchecked")
def test_double_precision_in_a_fit_is_refused_with_the_conversion() -> None:
    with pytest.raises(
        ValueError, match=r"a torch\.float64 tensor .*; use torch\.as_tensor\(u, dtype=torch\.float32\)$"
    ):
        pcl.fit(model(), (U.double(), V), epochs=1)


@pytest.mark.usefixtures("unchecked")
def test_one_axis_too_few_is_refused_with_both_ways_to_have_it() -> None:
    with pytest.raises(ValueError, match=r"give numbers as u\[:, None\], and a single vector as u\[None\]$"):
        model().embed_u(U[0])


@pytest.mark.usefixtures("unchecked")
def test_a_table_is_no_library() -> None:
    with pytest.raises(TypeError, match=r"u must be a torch\.Tensor, an array .* got a DataFrame of shape \(40, 3\)"):
        pcl.retrieval.Library(model(), u=TABLE)
