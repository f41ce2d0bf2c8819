"""
Choosing a loss
===============

Losses differ in what their best score is, and in what they leave open. Here the log-ratio of densities is known, and
the score that each loss leads to is laid against it.
"""

import matplotlib.pyplot as plt
import torch

import probcl as pcl

# %%
# Pairs whose ratio is known
# --------------------------
# :math:`u` and :math:`v` are standard normal with correlation 0.8, and
# :math:`\log r = \log p(u, v) / p(u)\, p(v)` is a quadratic form.

RHO = 0.8
C = torch.tensor([[1.0, RHO], [RHO, 1.0]])
train, test = (pcl.datasets.gaussian_pairs(C, n_u=1, n=n, seed=seed) for n, seed in ((20_000, 0), (400, 1)))
u, v = test.u, test.v[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
u, v = torch.cat([test.u, u]), torch.cat([test.v, v])  # matched and unmatched
exact = (RHO * u * v - RHO**2 * (u**2 + v**2) / 2) / (1 - RHO**2) - torch.tensor(1 - RHO**2).log() / 2

# %%
# Six losses, one alignment
# -------------------------
# The same perceptrons, the cosine and a temperature of 0.2 for all. ``loss.identifies`` tells what a loss determines.

LOSSES = {
    "conditional, two-sided": pcl.ConditionalLoss(),
    "conditional, u given v": pcl.ConditionalLoss(2, 0),
    "joint": pcl.JointLoss(),
    "f-MICL, Jensen–Shannon": pcl.FMICLLoss("js"),
    "RINCE, q = ½": pcl.RINCELoss(q=0.5),
    "spectral": pcl.SpectralLoss(),
}


def fitted(loss):
    torch.manual_seed(0)
    encoders = [pcl.encoders.MLP(1, 8, hidden=(64, 64)) for _ in "uv"]
    model = pcl.BimodalModel(*encoders, alignment=pcl.Cosine(), temperature=0.2, learn_temperature=False)
    pcl.fit(model, train, loss=loss, epochs=5, batch_size=256, lr=3e-3, schedule="cosine", seed=0)
    with torch.no_grad():
        return model.log_ratio(u, v)


scores = {name: fitted(loss) for name, loss in LOSSES.items()}
for name, loss in LOSSES.items():
    print(f"{name:23} identifies {loss.identifies}")

# %%
# Dots on the diagonal are a score that is the log-ratio; where a loss leaves a constant open, the median difference is
# taken out. The conditional loss of one side leaves a function of :math:`v` open, which is what the colour shows. RINCE
# fits a sharper score, and the spectral loss the ratio itself: its curve is an exponential. Pairs with a ratio below
# :math:`e^{-3}` are rare, and no loss has learned them well. Cosines bound the score by 5, which is where the
# conditional loss of one side, before its constant is taken out, and RINCE end.

figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.2), sharex=True, sharey=True, layout="constrained")
line = torch.linspace(-4, 1.5, 50)
for ax, (name, score) in zip(axes.flat, scores.items(), strict=True):
    ax.plot(line, line.exp() if name == "spectral" else line, color="0.6", lw=1)
    open_constant = 0 if name in ("f-MICL, Jensen–Shannon", "spectral") else (score - exact[:, 0]).median()
    dots = ax.scatter(exact[:, 0], score - open_constant, c=v[:, 0].abs(), s=7, lw=0, cmap="viridis_r", vmin=0, vmax=2)
    ax.set_title(name, fontsize=10)
    ax.set(xlim=(-4, 1.5), ylim=(-4.2, 3.2))
    ax.spines[["top", "right"]].set_visible(False)
for ax in axes[1]:
    ax.set_xlabel(r"$\log r(u, v)$")
for ax in axes[:, 0]:
    ax.set_ylabel("score")
figure.colorbar(dots, ax=axes, label="$|v|$", shrink=0.6, aspect=30)
