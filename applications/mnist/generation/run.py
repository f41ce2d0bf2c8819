"""Fit everything, draw, measure, and write the tables and the figure."""

from pathlib import Path

from rich.console import Console

from applications.mnist import experiment
from applications.mnist.experiment import with_shifts
from applications.mnist.generation import figure, halves, labels
from applications.mnist.generation.config import Config
from applications.mnist.generation.judge import Judge
from applications.mnist.generation.measures import Yardstick
from applications.tables import report
from probcl.datasets import Pairs, Split

LABELS_NOTE = """\
Seed {seed}; {draws} images for each label by every method; {training:,} training images. The judge, an independent
residual network, gives {accuracy:.3f} of the {test:,} test images their label. purity: share of images that the judge
gives the label they were drawn for (for the prior not tilted, a label at random). diversity: mean distance of two
images of a label over that of test images. Fréchet: distance to the test images in the judge's features. too close:
share of images nearer to a training image than all but 1% of test images. NLL, ECE: of p(label|image) by the row's
contrastive model (two-sided where it has none), against the label drawn for; ECE judge: against the label that the
judge sees. ms/image: from fitted models to images, the shortest of three runs; {proposals:,} proposals serve all
{all_draws:,} images."""

HALVES_NOTE = """\
Seed {seed}; {draws} halves for each of {count:,} test images. purity: share of completed digits that the judge gives
the digit's label. energy score: of the halves against the true one, fair, smaller is better. ms/image: of one run;
{proposals:,} proposals serve all {all_draws:,} halves."""


def run(data: Split, fits: experiment.Config, config: Config, output: Path) -> None:
    """Write table.md, table.csv, halves.md, halves.csv and figure.png."""
    if config.train_images:
        data = data._replace(train=Pairs(*(part[: config.train_images] for part in data.train)))
    console = Console()
    console.print("Fitting the judge")
    judge = Judge.fit(with_shifts(data.train) if config.shifted else data.train, config.seed, **config.judge)
    console.print("Fitting models and prior, and drawing images given labels")
    drawn = draw_labels(data, fits, config, judge)
    console.print("Fitting models and priors of halves, and drawing halves")
    completed = complete_halves(data, config, judge)
    note = LABELS_NOTE.format(
        seed=config.seed,
        draws=config.draws,
        training=data.train.n_pairs,
        accuracy=judge.accuracy(data.test),
        test=data.test.n_pairs,
        proposals=config.proposals,
        all_draws=config.draws * experiment.N_CLASSES,
    )
    report("Images given labels", [item.row for item in drawn], output / "table", note)
    count = completed[0].digits.shape[1]
    note = HALVES_NOTE.format(
        seed=config.seed,
        draws=config.halves.draws,
        count=count,
        proposals=config.halves.proposals,
        all_draws=config.halves.draws * count,
    )
    report("Halves of digits given the other half", [item.row for item in completed], output / "halves", note)
    figure.draw(drawn, completed, data, output / "figure.png")


def draw_labels(data: Split, fits: experiment.Config, config: Config, judge: Judge) -> list[labels.Drawn]:
    """Draw images for each label by all methods, and measure them and, last, the test images."""
    models, yardstick = labels.fit_models(data, fits, config), Yardstick(data, judge)
    drawn = [labels.measure(source, yardstick, config) for source in labels.sources(models, data, config)]
    real = labels.Drawn(labels.REAL, data.test.u, labels.real_row(yardstick, models.two_sided))
    return [*drawn, real]


def complete_halves(data: Split, config: Config, judge: Judge) -> list[halves.Completed]:
    """Complete test digits from either half by all methods."""
    count = min(config.halves.test_images, data.test.n_pairs)
    return [
        completed
        for direction in halves.directions(halves.fit_halves(data, config), data, count)
        for completed in halves.complete(direction, data.test.v[:count], judge, config)
    ]
