"""How a step embeds its batch: all at once, or in chunks whose activations are not kept."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probcl.model import BimodalModel
from probcl.randomness import Stream, derive_seed, seed_torch
from probcl.training.pairs import Batch


class Embedded:
    """Embeddings of a batch, and how a gradient in them goes on to the encoders' parameters."""

    def __init__(self, u: Float[Tensor, "n d"], v: Float[Tensor, "n d"]) -> None:
        self.u, self.v = u, v

    def pull_back(self) -> None:
        """After ``backward()`` of a loss of the embeddings: do what that has not done."""


class Embedder:
    """Embeds batches with a model's encoders, in bfloat16 if asked for; what it returns is in full precision.

    Parameters
    ----------
    chunk_size
        Pairs whose activations are held at once; None for a whole batch.
    """

    def __init__(self, model: BimodalModel, device: torch.device, amp: bool, chunk_size: int | None) -> None:
        self.model, self.device, self.amp, self.chunk_size = model, device, amp, chunk_size

    def __call__(self, batch: Batch, seed: int) -> Embedded:
        """Embed a batch; the seed decides about dropout and the like."""
        if self.chunk_size is None or self.chunk_size >= len(batch.u):
            seed_torch(seed, self.device)
            return Embedded(*self.encode(batch))
        return _Cached(batch, self, seed) if torch.is_grad_enabled() else Embedded(*self.in_chunks(batch, seed))

    def encode(self, batch: Batch) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Embed some pairs at once."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            z_u, z_v = self.model.encoder_u(batch.u), self.model.encoder_v(batch.v)
        return self._full(z_u), self._full(z_v)

    def in_chunks(self, batch: Batch, seed: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Embed a batch in chunks, without a graph."""
        with torch.no_grad():
            z_u, z_v = zip(*(self.encode(chunk) for chunk in self.chunks(batch, seed)), strict=True)
        return torch.cat(z_u), torch.cat(z_v)

    def chunks(self, batch: Batch, seed: int) -> Iterator[Batch]:
        """Yield the chunks of a batch, each with torch seeded for it."""
        assert self.chunk_size is not None
        parts = zip(batch.u.split(self.chunk_size), batch.v.split(self.chunk_size), strict=True)
        for number, (u, v) in enumerate(parts):
            seed_torch(derive_seed(seed, Stream.MODEL, number), self.device)
            yield Batch(u, v)

    def _full(self, z: Tensor) -> Tensor:
        return z.float() if self.amp and z.dtype == torch.bfloat16 else z


class _Cached(Embedded):
    """Embeddings without a graph, whose chunks are embedded again, with one, once their gradient is known.

    (Gao, Zhang, Han & Callan 2021, section 3: GradCache.)
    """

    def __init__(self, batch: Batch, embedder: Embedder, seed: int) -> None:
        super().__init__(*(z.requires_grad_() for z in embedder.in_chunks(batch, seed)))
        self._batch, self._embedder, self._seed = batch, embedder, seed

    def pull_back(self) -> None:
        size = self._embedder.chunk_size
        assert size is not None
        gradients = (torch.zeros_like(z) if z.grad is None else z.grad for z in (self.u, self.v))
        parts = zip(*(gradient.split(size) for gradient in gradients), strict=True)
        for chunk, upstream in zip(self._embedder.chunks(self._batch, self._seed), parts, strict=True):
            pairs = zip(self._embedder.encode(chunk), upstream, strict=True)
            trained = [(z, gradient) for z, gradient in pairs if z.requires_grad]
            torch.autograd.backward([z for z, _ in trained], [gradient for _, gradient in trained])


def batch_normalizations(module: nn.Module) -> list[str]:
    """Return the names of the parts whose output for one pair depends on the others that it is embedded with."""
    return [name for name, part in module.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
