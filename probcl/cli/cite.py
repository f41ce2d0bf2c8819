"""``probcl cite``: what to cite."""

from typing import Annotated

import typer

from probcl.citations import citations
from probcl.cli import assimilator
from probcl.cli.errors import Misuse
from probcl.cli.folder import open_folder
from probcl.cli.screen import current
from probcl.cli.use import SAMPLERS, ModelPath, SamplerName


def cite(
    model: ModelPath,
    sampler: Annotated[SamplerName | None, typer.Option(help="What samples were drawn with, if any were.")] = None,
) -> None:
    """Print BibTeX for the papers behind the parts of a model, and for probcl."""
    screen = current()
    learned = assimilator.load_if_assimilator(model)
    if learned is not None:
        if sampler is not None:
            raise Misuse("--sampler is for models; a learned analysis has its own")
        papers = citations(learned.route.model, learned.route.loss, learned.route.sampler)
    else:
        folder = open_folder(model)
        loss = None if folder.config is None else folder.config.loss.build()
        if loss is None:
            screen.warn(f"{model}: the loss was not recorded, so its paper is not among these")
        papers = citations(folder.model, loss, None if sampler is None else SAMPLERS[sampler]())
    screen.show(
        {"citations": [{"key": paper.key, "reason": paper.reason, "bibtex": paper.bibtex} for paper in papers]},
        "\n\n".join(paper.bibtex for paper in papers),
    )
