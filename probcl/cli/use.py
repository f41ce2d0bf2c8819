"""``probcl retrieve``, ``classify`` and ``sample``: what a fitted model is for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import Tensor

from probcl.classification import zero_shot
from probcl.cli.errors import Misuse
from probcl.cli.folder import ModelFolder, open_folder, other
from probcl.cli.inputs import class_names, read_values
from probcl.cli.outputs import require_suffix, write_arrays, write_table
from probcl.cli.priors import read_prior
from probcl.cli.screen import current
from probcl.encoders import Label
from probcl.randomness import seeded
from probcl.retrieval import Library
from probcl.samplers import NUTS, AutoSampler, ImportanceResampling, Sampler, TemperedSMC

_BATCH = 4096
# Conditions that are drawn for at once: few, so that progress is seen, and as a sampler of continuous priors holds
# thousands of particles for each. Chains are slow to step, however few they are.
_CONDITIONS, _CHAINS = 8, 64
_ROWS_SHOWN = 10


class Modality(StrEnum):
    """One of the two."""

    u = "u"
    v = "v"


class SamplerName(StrEnum):
    """A sampler of `probcl.samplers`."""

    auto = "auto"
    importance = "importance"
    smc = "smc"
    nuts = "nuts"


SAMPLERS: dict[SamplerName, type[Sampler]] = {
    SamplerName.auto: AutoSampler,
    SamplerName.importance: ImportanceResampling,
    SamplerName.smc: TemperedSMC,
    SamplerName.nuts: NUTS,
}

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The folder that probcl fit wrote.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write to.")]
FILE = "FILE"


def retrieve(
    model: ModelPath,
    library: Annotated[
        str, typer.Option(metavar=FILE, help="What to search: an array file (FILE or FILE:KEY) or a folder of images.")
    ],
    queries: Annotated[str, typer.Option(metavar=FILE, help="What to search with, of the other modality.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items to find for each query.")] = 5,
    of: Annotated[Modality, typer.Option(help="The modality of the library.")] = Modality.u,
    output: Output = None,
) -> None:
    """Find the items that belong to each query, best first.

    --output writes every match to a .csv, .json, .npz or .safetensors.
    """
    screen = current()
    require_suffix(output, ".csv", ".json", ".npz", ".safetensors")
    folder = open_folder(model)
    items = read_values(library, folder, of.value, screen)
    if k > len(items):
        raise Misuse(f"-k must be at most the {len(items)} items of the library, got {k}")
    searched = read_values(queries, folder, other(of.value), screen)
    batches = screen.track(items.split(_BATCH), "embedding the library", len)
    collection = Library(folder.model, u=batches) if of is Modality.u else Library(folder.model, v=batches)
    found = [collection.topk(chunk, k) for chunk in screen.track(searched.split(_BATCH), "searching", len)]
    scores, indices = torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])
    if output is not None:
        _write_matches(output, scores, indices)
        screen.say(f"{len(searched)} queries with {k} items each: {output}")
    table = _table("query", *(f"{place}." for place in range(1, k + 1)))
    for query, (items_of, scores_of) in enumerate(zip(indices[:_ROWS_SHOWN], scores[:_ROWS_SHOWN], strict=True)):
        table.add_row(
            str(query), *(f"{int(i)} [dim]{float(s):.2f}[/]" for i, s in zip(items_of, scores_of, strict=True))
        )
    data = {"indices": indices.tolist(), "scores": scores.tolist()}
    screen.show(data, table, *_more(len(searched), output))


def classify(
    model: ModelPath,
    images: Annotated[
        str, typer.Option(metavar=FILE, help="What to classify (u): an array file or a folder of images.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(metavar=FILE, help="One v for each class; by default the classes that the model knows."),
    ] = None,
    output: Output = None,
) -> None:
    """Give each image (or whatever u is) the probabilities of the classes.

    --output writes them to a .csv, .json, .npz or .safetensors.
    """
    screen = current()
    require_suffix(output, ".csv", ".json", ".npz", ".safetensors")
    folder = open_folder(model)
    candidates = _candidates(folder) if labels is None else read_values(labels, folder, "v", screen)
    values = read_values(images, folder, "u", screen)
    classifier = zero_shot(folder.model, candidates)
    probs = torch.cat([classifier(chunk) for chunk in screen.track(values.split(_BATCH), "classifying", len)])
    predicted = probs.argmax(1)
    names = (class_names(folder) if labels is None else None) or [str(i) for i in range(len(candidates))]
    if output is not None:
        _write_classes(output, probs, predicted, names)
        screen.say(f"{len(values)} of u in {len(names)} classes: {output}")
    table = _table("u", "class", "probability", "next")
    for row in range(min(_ROWS_SHOWN, len(values))):
        order = probs[row].argsort(descending=True)[:2].tolist()
        runner_up = f"{names[order[1]]} {probs[row, order[1]]:.3f}" if len(order) > 1 else ""
        table.add_row(str(row), escape(names[order[0]]), f"{probs[row, order[0]]:.3f}", Text(runner_up, style="dim"))
    data = {"classes": names, "predicted": predicted.tolist(), "probabilities": probs.tolist()}
    screen.show(data, table, *_more(len(values), output))


def sample(
    model: ModelPath,
    given: Annotated[str, typer.Option(metavar=FILE, help="What to condition on, of the other modality.")],
    prior: Annotated[
        str,
        typer.Option(
            metavar="PRIOR",
            help="A bank to draw from (FILE), normal (standard), or gaussian:FILE (fitted to the file).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="An .npz or .safetensors with samples (n, conditions, …) and their effective number."
        ),
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Draws for each condition.")] = 100,
    of: Annotated[Modality, typer.Option(help="The modality to draw.")] = Modality.u,
    sampler: Annotated[SamplerName, typer.Option(help="How to draw where there is no closed form.")] = SamplerName.auto,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the draws.")] = 0,
) -> None:
    """Draw from the learned conditional, the prior tilted by the model."""
    screen = current()
    require_suffix(output, ".npz", ".safetensors")
    folder = open_folder(model)
    conditions = read_values(given, folder, other(of.value), screen)
    law = read_prior(prior, folder, of.value, screen)
    conditional = folder.conditional(of.value, law, None if sampler is SamplerName.auto else SAMPLERS[sampler]())
    draws, effective = [], []
    with seeded(seed):
        at_once = _CHAINS if sampler is SamplerName.nuts else _CONDITIONS
        for chunk in screen.track(conditions.split(at_once), "drawing", len):
            distribution = conditional.condition(chunk)
            draws.append(distribution.sample((n,)))
            effective.append(distribution.ess())
    ess = torch.cat(effective)
    write_arrays(output, {"samples": torch.cat(draws, 1), "ess": ess})
    finite = bool(ess.isfinite().all())
    data: dict[str, Any] = {"output": str(output), "samples": n, "conditions": len(conditions)}
    data |= {"ess_median": float(ess.median()) if finite else None, "ess_min": float(ess.min()) if finite else None}
    quality = (
        f"effective draws behind each: median {ess.median():.4g}, least {ess.min():.4g}" if finite else "in closed form"
    )
    screen.show(data, f"{n} draws for each of {len(conditions)} conditions: {output}", quality)


def _candidates(folder: ModelFolder) -> Tensor:
    encoder = folder.model.encoder_v
    if not isinstance(encoder, Label):
        raise Misuse("the model's v are no labels: give --labels FILE, one v for each class")
    return torch.arange(encoder.n_classes)


def _write_matches(output: Path, scores: Tensor, indices: Tensor) -> None:
    if output.suffix.lower() in (".npz", ".safetensors"):
        return write_arrays(output, {"indices": indices, "scores": scores})
    rows = [
        (query, place + 1, item, score)
        for query, pairs in enumerate(zip(indices.tolist(), scores.tolist(), strict=True))
        for place, (item, score) in enumerate(zip(*pairs, strict=True))
    ]
    return write_table(output, ("query", "place", "item", "score"), rows)


def _write_classes(output: Path, probs: Tensor, predicted: Tensor, names: list[str]) -> None:
    if output.suffix.lower() in (".npz", ".safetensors"):
        return write_arrays(output, {"predicted": predicted, "probabilities": probs})
    rows = [
        (i, names[best], *row) for i, (best, row) in enumerate(zip(predicted.tolist(), probs.tolist(), strict=True))
    ]
    return write_table(output, ("u", "class", *(f"p_{name}" for name in names)), rows)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _more(count: int, output: Path | None) -> list[str]:
    left = count - _ROWS_SHOWN
    if left <= 0:
        return []
    return [f"… and {left} more, in {output}" if output else f"… and {left} more: --output FILE, or --json"]
