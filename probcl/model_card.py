"""`model_card`: what a model is and how to use it, as the README of its folder."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from probcl.citations import citations
from probcl.errors import ProbclWarning
from probcl.files import write_atomically
from probcl.losses import Identifies, Loss
from probcl.model import BimodalModel, require_model
from probcl.serialization import to_config
from probcl.training import History

CARD_FILE = "README.md"
_TAGS = ("contrastive-learning", "conditional-distribution", "two-tower")
_SCORES = "scores = model.scores(u, v)  # larger for pairs that belong together"
_U_GIVEN_V = "law = model.u_given_v(prior).condition(v)  # a Pyro distribution"
_CALLS: dict[Identifies | None, str] = {
    Identifies.RATIO: _U_GIVEN_V,
    Identifies.RATIO_UP_TO_V: _U_GIVEN_V,
    Identifies.RATIO_UP_TO_U: "law = model.v_given_u(prior).condition(u)  # a Pyro distribution",
}
_SIGNATURE = "<!-- as probcl wrote it: {} -->\n"


def model_card(
    model: BimodalModel,
    *,
    loss: Loss | None = None,
    history: History | None = None,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    repo_id: str | None = None,
) -> str:
    r"""Return a model card in Markdown, with the front matter that the Hugging Face Hub reads.

    It says what the model is made of, what its loss determines and so which conditionals it may be trusted for, how to
    load it, and what to cite. Add to it what only you know: the data, and what the model must not be used for.

    Parameters
    ----------
    model
        The fitted model.
    loss
        What it was fitted with, which the model itself does not remember.
    history
        Of the fit; the lowest validation loss becomes one of the held-out numbers.
    metrics
        Further held-out numbers, by name.
    license
        Identifier of the license, as ``"apache-2.0"``. Without it the card names none.
    tags
        Further tags.
    repo_id
        ``"user/name"`` on the Hub, for the title and the lines that load the model.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.model_card import model_card
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(5, 2), pcl.encoders.Label(2))
    >>> print(model_card(model, license="cc0-1.0").partition("\n\n")[0])
    ---
    library_name: probcl
    license: cc0-1.0
    tags:
    - contrastive-learning
    - conditional-distribution
    - two-tower
    ---
    """
    require_model(model)
    front: dict[str, Any] = {"library_name": "probcl", "license": license, "tags": [*_TAGS, *tags]}
    front = {key: value for key, value in front.items() if value is not None}
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {repo_id.rpartition('/')[2] if repo_id else 'A bimodal model'}",
        _introduction(),
        _table("part", "", _parts(model)),
        "## What it was fitted for",
        _fitted_for(model, loss),
        "## Held-out numbers",
        _table("", "value", _numbers(history, metrics)) or "None were recorded.",
        "## Use",
        _use(model, repo_id),
        "## Citation",
        "```bibtex\n" + "\n\n".join(paper.bibtex for paper in citations(model, loss)) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def write_card(path: Path, text: str) -> None:
    """Write a card, unless there is one that somebody edited.

    Warns
    -----
    ProbclWarning
        If there is, and it was kept.
    """
    if path.exists() and not _as_written(path.read_text(encoding="utf-8", errors="replace")):
        warnings.warn(
            f"{path.name} has been written or edited by hand and was kept; move it away for a new one",
            ProbclWarning,
            stacklevel=4,
        )
        return
    write_atomically(path, (text + _signature(text)).encode())


def _signature(text: str) -> str:
    return "\n" + _SIGNATURE.format(hashlib.sha256(text.encode()).hexdigest()[:16])


def _as_written(content: str) -> bool:
    """Whether a card is what `write_card` wrote, to the letter."""
    text = content[: -len(_signature(""))]
    return content == text + _signature(text)


def _introduction() -> str:
    from probcl import __version__

    return (
        f"Two encoders and an alignment of their outputs: a learned conditional distribution of each modality, *u* and "
        f"*v*, given the other. Saved by probcl {__version__}."
    )


def _parts(model: BimodalModel) -> dict[str, str]:
    parts = {"encoder of u": model.encoder_u, "encoder of v": model.encoder_v, "alignment": model.alignment}
    told = {name: _described(part) for name, part in parts.items()}
    temperature = f"{model.temperature.value:.4g}{', learned' if model.temperature.learnable else ''}"
    return told | {"temperature": temperature}


def _described(part: nn.Module) -> str:
    config = to_config(part)
    arguments = ", ".join(f"{name}={_plain(value)}" for name, value in (config["arguments"] or {}).items())
    count = sum(parameter.numel() for parameter in part.parameters())
    return f"`{config['class']}({arguments})`" + (f", {count:,} parameters" if count else "")


def _plain(value: Any) -> Any:
    return value["class"] if isinstance(value, dict) and "class" in value else repr(value)


def _fitted_for(model: BimodalModel, loss: Loss | None) -> str:
    if loss is None:
        by = "The loss it was fitted with is not recorded."
    else:
        by = f"It was fitted with `{' '.join(repr(loss).split())}`."
    if model.identifies is None:
        return f"{by} What it determines is not known."
    regauged = "" if model.gauge is None else f" The score was normalised over {model.gauge.over} afterwards."
    return f"{by} What that determines is {model.identifies.value}.{regauged}"


def _numbers(history: History | None, metrics: Mapping[str, float] | None) -> dict[str, str]:
    numbers: dict[str, float] = {}
    if history is not None and history.best_epoch is not None:
        numbers["validation loss, the lowest of all epochs"] = float(history.validation_loss[history.best_epoch])
    return {name: f"{value:.4g}" for name, value in (numbers | dict(metrics or {})).items()}


def _table(name: str, value: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {value} |", "| --- | --- |", *(f"| {key} | {text} |" for key, text in rows.items())]
    return "\n".join(lines) if rows else ""


def _use(model: BimodalModel, repo_id: str | None) -> str:
    parts = {"encoder_u": model.encoder_u, "encoder_v": model.encoder_v, "alignment": model.alignment}
    unknown = [name for name, part in parts.items() if to_config(part)["arguments"] is None]
    arguments = "".join(f", {name}={name}" for name in unknown)
    where = f'from_pretrained("{repo_id}"{arguments})' if repo_id else f'load("FOLDER"{arguments})'
    first = f"# {', '.join(unknown)}: modules of your own, built as for the fit\n" if unknown else ""
    return (
        f"```python\nimport probcl as pcl\n\n{first}model = pcl.BimodalModel.{where}\n"
        f"{_CALLS.get(model.identifies, _SCORES)}\n```"
    )
