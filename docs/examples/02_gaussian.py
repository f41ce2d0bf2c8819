r"""
Gaussians: closed form and fit
==============================

For Gaussian pairs and linear encoders the best score is known in closed form. What a fit finds can be laid upon it, and
both upon the truth, which not every alignment can represent.
"""

import matplotlib.pyplot as plt
import torch

import probcl as pcl
from probcl.plotting import PALETTE, gaussian_ellipse

# %%
# Pairs with a known law
# ----------------------
# :math:`u` and :math:`v` are scalars of variance 1.5 and covariance 1, as in §5.4 of Baptista, Stuart & Tran (2025).

C = torch.tensor([[1.5, 1.0], [1.0, 1.5]], dtype=torch.float64)
pairs = pcl.datasets.gaussian_pairs(C, n_u=1, n=20_000, seed=0)

# %%
# Three alignments
# ----------------
# The closed form is that of the population. The fit sees 20,000 pairs in batches of 500.

ALIGNMENTS = {
    "inner": pcl.InnerProduct(),
    "l2": pcl.L2(),
    "potentials": pcl.WithPotentials(),
}


def learned(alignment):
    torch.manual_seed(0)
    width = 2 if isinstance(alignment, pcl.WithPotentials) else 1
    encoders = [pcl.encoders.Linear(1, width, bias=False) for _ in "uv"]
    model = pcl.BimodalModel(*encoders, alignment=alignment)
    pcl.fit(model, pairs, epochs=12, batch_size=500, lr=2e-2, schedule="cosine", seed=0)
    return model


# %%
# The scores are quadratic, :math:`s = a u v - \tfrac12 b u^2 - \tfrac12 c v^2` up to a constant, and their differences
# give the coefficients. A score and the two marginals make a law of pairs,
# :math:`\nu(du, dv) \propto e^{s(u, v)} \mu_u(du) \mu_v(dv)`.


@torch.no_grad()
def law_of(model):
    points = torch.tensor([[-1.0], [0.0], [1.0]])
    s = model.scores(points, points).matrix().double()
    a = (s[2, 2] - s[2, 0] - s[0, 2] + s[0, 0]) / 4
    b = 2 * s[1, 1] - s[0, 1] - s[2, 1]
    c = 2 * s[1, 1] - s[1, 0] - s[1, 2]
    return pcl.gaussian.learned_law(C, 1, *(value.view(1, 1) for value in (a, b, c)))


# %%
# Grey is the truth, the filled ellipses the closed form, the dashed ones the fit, each with half and nine tenths of the
# mass. The inner product has the right slope and too much variance; L2 is a compromise; the inner product with
# potentials can represent every Gaussian, and does.

RADII = [(-2 * torch.tensor(1 - mass).log()).sqrt().item() for mass in (0.5, 0.9)]
figure, axes = plt.subplots(1, 3, figsize=(10.5, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, (name, alignment), color in zip(axes, ALIGNMENTS.items(), PALETTE, strict=False):
    best = pcl.gaussian.optimum(C, 1, rank=1, alignment=name, loss="conditional")
    gaussian_ellipse(ax, C, RADII, color="0.45", lw=1)
    gaussian_ellipse(ax, best.law.covariance, RADII, fill=True, color=color, alpha=0.25, lw=0)
    gaussian_ellipse(ax, law_of(learned(alignment)).covariance, RADII, color=color, lw=1.5, ls="--")
    ax.set(xlabel="$u$", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    ax.set_title(f"{type(alignment).__name__}, {best.divergence:.3f} nats from the truth", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("$v$")
