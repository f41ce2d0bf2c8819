"""The judge: a classifier that has no part in the generation."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import probcl as pcl
from applications.mnist.experiment import N_CLASSES
from applications.seeding import seeded
from probcl.datasets import Pairs

# Its weights and batches must not be those of the models it judges.
_SEED_OFFSET = 100
_AT_ONCE = 1000


class Judge:
    """A residual network for classification, trained on its own, and the features it classifies by."""

    def __init__(self, network: pcl.encoders.ResidualConvNet) -> None:
        self.network = network.eval()

    @classmethod
    def fit(
        cls, pairs: Pairs, seed: int, *, width: int, stages: int, epochs: int, batch_size: int, lr: float
    ) -> "Judge":
        """Fit by cross-entropy with AdamW and one cycle of the learning rate."""
        with seeded(seed + _SEED_OFFSET):
            network = pcl.encoders.ResidualConvNet(N_CLASSES, pairs.u.shape[1], width, stages)
            batches = -(-pairs.n_pairs // batch_size)
            optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * batches)
            for _ in range(epochs):
                for rows in torch.randperm(pairs.n_pairs).tensor_split(batches):
                    loss = cross_entropy(network(pairs.u[rows]), pairs.v[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        return cls(network)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what the last linear layer is given, shape (n, d)."""
        return torch.cat([self.network.layers[:-1](part) for part in images.split(_AT_ONCE)])

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """Return the most probable label of each image."""
        return self.network.layers[-1](self.features(images)).argmax(1)

    def accuracy(self, pairs: Pairs) -> float:
        return float((self.labels(pairs.u) == pairs.v).float().mean())
