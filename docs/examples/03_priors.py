"""
One score, four priors
======================

A score says how much more often :math:`u` and :math:`v` occur together than by chance. The prior enters after the fit,
and can be exchanged: each of these four gives another conditional, and each is a Pyro distribution.
"""

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch

import probcl as pcl
from probcl.plotting import PALETTE

# %%
# A score to begin with
# ---------------------
# :math:`u` is normal in the plane, and :math:`v` is :math:`u` with noise of standard deviation ½.

torch.manual_seed(0)
covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
u = dist.MultivariateNormal(torch.zeros(2), covariance).sample((8000,))
v = u + 0.5 * torch.randn(8000, 2)
model = pcl.BimodalModel(pcl.encoders.Linear(2, 2), pcl.encoders.Linear(2, 2), alignment=pcl.L2())
pcl.fit(model, (u, v), loss=pcl.ConditionalLoss(2, 0), epochs=15, batch_size=500, lr=3e-2, schedule="cosine", seed=0)

# %%
# Four priors
# -----------
# A bank of values, a Gaussian, and any continuous distribution of Pyro or torch.

centres = torch.tensor([[-1.0, 0.3], [1.2, 0.0]])
PRIORS = {
    "a bank of 300": pcl.EmpiricalPrior(u[:300]),
    "Gaussian": pcl.GaussianPrior(torch.zeros(2), covariance),
    "uniform": dist.Uniform(torch.tensor([-1.5, -1.5]), torch.tensor([0.75, 1.5])),
    "a mixture": dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.5, 0.5])), dist.MultivariateNormal(centres, 0.08 * torch.eye(2))
    ),
}

# %%
# One observation
# ---------------
# `draw` makes draws and says how: a sum over the bank, a closed form, or a sampler that reports on itself.

seen = torch.tensor([[0.5, 0.5]])
posteriors = {name: model.u_given_v(prior).condition(seen) for name, prior in PRIORS.items()}
for name, posterior in posteriors.items():
    print(f"{name:13}  {type(posterior).__name__:20}  mean {posterior.mean[0].numpy().round(2)}", end="  ")
    print(f"log-normaliser {posterior.log_normalizer.item():.2f} ± {posterior.log_normalizer_se.item():.2f}")

# %%
# Orange are 300 draws from each prior, blue 300 from the conditional; the cross is :math:`v`.

torch.manual_seed(0)
figure, axes = plt.subplots(1, 4, figsize=(10.5, 3), sharex=True, sharey=True, layout="constrained")
for ax, (name, posterior) in zip(axes, posteriors.items(), strict=True):
    prior = PRIORS[name]
    before = prior.values if name == "a bank of 300" else prior.sample((300,))
    after = posterior.sample((300,))[:, 0]
    ax.scatter(*before.T, s=5, lw=0, color=PALETTE[4], alpha=0.6)
    ax.scatter(*after.T, s=7, lw=0, color=PALETTE[0], alpha=0.7)
    ax.plot(*seen.T, "+", color="black", ms=9)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="$u_1$")
    ax.set_title(name, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("$u_2$")

# %%
# In a larger Pyro model
# ----------------------
# A conditional can be a site of any Pyro program. Here :math:`u_1` is measured a second time, and importance sampling
# puts the two together.

import pyro  # noqa: E402
from pyro.infer import Importance  # noqa: E402


def measured_again(value):
    u = pyro.sample("u", posteriors["Gaussian"])
    pyro.sample("again", dist.Normal(u[..., 0], 0.2).to_event(1), obs=value)
    return u


pyro.set_rng_seed(0)
run = Importance(measured_again, num_samples=500).run(torch.tensor([0.0]))
weights = run.get_normalized_weights()
means = torch.stack([trace.nodes["u"]["value"][0] for trace in run.exec_traces])
print("mean before", posteriors["Gaussian"].mean[0].numpy().round(2), "after", (weights @ means).numpy().round(2))
