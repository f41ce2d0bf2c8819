"""
Generation, and the re-gauge
============================

A model fitted for label given image says nothing about images given labels: its score is known up to a function of the
image. Drawing images with it collapses on a few. The re-gauge takes that function out, without another fit.
"""

import warnings

import matplotlib.pyplot as plt
import torch

import probcl as pcl
from probcl.plotting import PALETTE, mosaic

# %%
# One fit, for labels
# -------------------

data = pcl.datasets.load_digits()
torch.manual_seed(0)
model = pcl.BimodalModel(pcl.encoders.MLP(64, 10), pcl.encoders.Label(10))
only_labels = pcl.ConditionalLoss(lambda_u=0, lambda_v=2)
pcl.fit(model, data.train, loss=only_labels, validation=data.validation, epochs=30, batch_size=128, lr=2e-3, seed=0)

# %%
# Used backwards, and after the re-gauge
# --------------------------------------
# probcl warns of the first.

bank, digits = pcl.EmpiricalPrior(data.test.u), torch.arange(10)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    backwards = model.u_given_v(bank).condition(digits)
print(told[0].message)

regauged = model.regauged(over="v", prior=pcl.EmpiricalPrior(data.train.v)).u_given_v(bank).condition(digits)

# %%
# Twelve images for each label from both, and how many equally probable images would be as diverse.

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9), width_ratios=[3.4, 3.4, 2.2], layout="constrained")
for ax, (title, conditional) in zip(axes, {"used backwards": backwards, "re-gauged": regauged}.items(), strict=False):
    drawn = pcl.generation.resample(conditional, 12, seed=0)
    mosaic(ax, drawn.values.movedim(0, 1)[:, :, 0], row_names=[str(digit) for digit in range(10)])
    ax.set_title(title, fontsize=10)

bars = axes[2]
bars.barh(digits - 0.19, backwards.ess(), height=0.36, color="0.65", label="used backwards")
bars.barh(digits + 0.19, regauged.ess(), height=0.36, color=PALETTE[0], label="re-gauged")
bars.set(yticks=digits, ylim=(9.6, -0.6), xlabel="effective sample size")
bars.set_title(f"of {data.test.n_pairs} images", fontsize=10)
bars.spines[["top", "right"]].set_visible(False)
bars.tick_params(axis="y", length=0)
figure.legend(*bars.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=2)
