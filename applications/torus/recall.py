"""The experiment of the paper: find the potential of a trajectory, and the trajectory of a potential."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import probcl as pcl
from applications.tables import Row
from applications.torus.config import Config, RecallConfig
from applications.torus.paths import N_FEATURES, Samples, WhitenedPath
from probcl.datasets import Pairs
from probcl.datasets.ocean import TorusFlow

# Added to the seed of the pairs that are fitted to.
TEST = 1_000_000
N_COEFFICIENTS = 98
# Galleries of one size that recall is averaged over, where the test pairs make so many.
_MOST_GALLERIES = 50


class Variant(NamedTuple):
    """A model to be fitted."""

    u_encoder: str
    v_encoder: str
    alignment: Callable[[], pcl.Alignment] = pcl.Cosine
    loss: Callable[[], pcl.Loss] = pcl.ConditionalLoss

    @property
    def title(self) -> str:
        return f"{self.u_encoder}, {self.v_encoder}"


VARIANTS = (
    Variant("identity", "perceptron"),
    Variant("linear", "perceptron"),
    Variant("perceptron", "perceptron"),
    Variant("perceptron", "perceptron", alignment=pcl.L2),
    Variant("perceptron", "perceptron", loss=pcl.JointLoss),
    Variant("perceptron", "transformer"),
    Variant("identity", "transformer"),
)


class Retrieved(NamedTuple):
    """Whether the partner is among the first five, by size of the gallery: a row for each query."""

    variant: Variant
    potential: dict[int, Bool[Tensor, "queries 5"]]
    trajectory: dict[int, Bool[Tensor, "queries 5"]]
    seconds: float

    @property
    def is_of_the_first_loss(self) -> bool:
        """Whether alignment and loss are the paper's."""
        return self.variant.alignment is pcl.Cosine and self.variant.loss is pcl.ConditionalLoss


def load(config: Config) -> tuple[Pairs, Pairs]:
    """Return pairs to fit and to test."""
    flow = TorusFlow(n_times=config.recall.n_times)
    return flow.sample(config.recall.n_pairs, config.seed), flow.sample(config.recall.n_test, config.seed + TEST)


def retrieve(variant: Variant, train: Pairs, test: Pairs, config: Config) -> Retrieved:
    """Fit a variant and retrieve with it, both ways."""
    settings, began = config.recall, time.perf_counter()
    if variant.v_encoder == "transformer":
        samples = Samples.fit(train.v, settings.samples)
        train, test = Pairs(train.u, samples(train.v)), Pairs(test.u, samples(test.v))
    model = _model(variant, train, settings, config.seed)
    fit = settings.transformer_fit if variant.v_encoder == "transformer" else settings.fit
    pcl.fit(model, train, variant.loss(), seed=config.seed, device="cpu", **fit)
    seconds = time.perf_counter() - began
    z_u, z_v = model.embed_u(test.u), model.embed_v(test.v)
    potential: dict[int, Tensor] = {}
    trajectory: dict[int, Tensor] = {}
    for size in settings.galleries:
        parts = list(zip(z_u.split(size), z_v.split(size), strict=True))[: min(_MOST_GALLERIES, len(z_u) // size)]
        scores = [model.scores_of_embeddings(*part) for part in parts]
        potential[size] = torch.cat([_found(part, 0) for part in scores])
        trajectory[size] = torch.cat([_found(part, 1) for part in scores])
    return Retrieved(variant, potential, trajectory, seconds)


def _found(scores: pcl.Scores, dim: Literal[0, 1]) -> Bool[Tensor, "queries 5"]:
    with torch.no_grad():
        ranked = scores.topk(5, dim).indices
    return (ranked == torch.arange(len(ranked))[:, None]).cummax(1).values


def _model(variant: Variant, train: Pairs, settings: RecallConfig, seed: int) -> pcl.BimodalModel:
    width = settings.width if variant.u_encoder == "perceptron" else N_COEFFICIENTS
    encoders_u: dict[str, Callable[[], nn.Module]] = {
        "identity": pcl.encoders.Identity,
        "linear": lambda: pcl.encoders.Linear(N_COEFFICIENTS, width),
        "perceptron": lambda: pcl.encoders.MLP(N_COEFFICIENTS, width, settings.hidden),
    }
    encoders_v: dict[str, Callable[[], nn.Module]] = {
        "perceptron": lambda: WhitenedPath.of(train.v, settings.components, width, settings.hidden),
        "transformer": lambda: pcl.encoders.TrajectoryTransformer(N_FEATURES, width, **settings.transformer),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = encoders_u[variant.u_encoder](), encoders_v[variant.v_encoder]()
    # Distances between random embeddings are of order one, cosines are not.
    temperature = settings.temperature if variant.alignment is pcl.Cosine else 1.0
    return pcl.BimodalModel(*encoders, variant.alignment(), temperature, learn_temperature=True)


def measure(retrieved: Retrieved, settings: RecallConfig) -> Row:
    """Return a row of the table."""
    variant, largest = retrieved.variant, max(settings.galleries)
    row: dict[str, str | float] = {
        "g_u": variant.u_encoder,
        "g_v": variant.v_encoder,
        "alignment": variant.alignment.__name__,
        "loss": variant.loss.__name__.removesuffix("Loss").lower(),
    }
    for name, way in (("u", retrieved.potential), ("v", retrieved.trajectory)):
        for k in (1, 5):
            low, high = bootstrap(way[largest][:, k - 1].double())
            row |= {f"{name}: R@{k}": float(way[largest][:, k - 1].double().mean()), f"± {name}{k}": (high - low) / 2}
    return row | {"fit s": retrieved.seconds}


def bootstrap(
    values: Float[Tensor, "n *rest"], statistic: Callable[[Tensor], Tensor] = torch.mean, count: int = 500
) -> tuple[float, float]:
    """Return the limits of the 95% bootstrap interval of a statistic of a sample along the first axis."""
    generator = torch.Generator().manual_seed(0)
    again = [statistic(values[torch.randint(len(values), (len(values),), generator=generator)]) for _ in range(count)]
    low, high = torch.stack(again).double().quantile(torch.tensor([0.025, 0.975]).double())
    return float(low), float(high)
