r"""
Retrieval: the other half
=========================

Let :math:`v` be the upper half of a digit and :math:`u` the lower. The best items of a library of lower halves are the
modes of :math:`\nu(u \mid v)`, and the library's normaliser makes probabilities of their scores.
"""

import matplotlib.pyplot as plt
import torch

import probcl as pcl
from probcl.plotting import PALETTE, mosaic

# %%
# Halves of digits
# ----------------
# The model never sees a label.

data = pcl.datasets.load_digits()
(lower, upper), (lower_new, upper_new) = (
    (images[:, 0, 4:].flatten(1), images[:, 0, :4].flatten(1)) for images in (data.train.u, data.test.u)
)

torch.manual_seed(0)
model = pcl.BimodalModel(pcl.encoders.MLP(32, 16), pcl.encoders.MLP(32, 16))
pcl.fit(model, (lower, upper), epochs=40, batch_size=128, lr=2e-3, schedule="cosine", seed=0)

# %%
# A library
# ---------
# It embeds its items once, and keeps the embeddings. ``Library.create`` makes one on disk, ``index`` one that is
# approximate.

library = pcl.retrieval.Library(model, u=lower_new)
recall = pcl.diagnostics.recall(library, upper_new, max_k=30)
print(recall)

# %%
# Where the right half ranks, and the first six found
# ---------------------------------------------------
# The upper half that is asked for, and six digits completed with what the library finds; green marks the half that
# belongs to it. Several halves fit, and the probabilities say so.

asked = torch.tensor([int((data.test.v == digit).nonzero()[0]) for digit in (0, 2, 3, 5, 7, 8)])
values, indices = library.topk(upper_new[asked], k=6)
probabilities = (values - library.log_normalizer(upper_new[asked])[:, None]).exp()

query = torch.cat([upper_new[asked].view(-1, 1, 4, 8), torch.zeros(len(asked), 1, 4, 8)], dim=2)
top = upper_new[asked].view(-1, 1, 4, 8).expand(-1, 6, -1, -1)
completed = torch.cat([top, lower_new[indices].view(-1, 6, 4, 8)], dim=2)

figure = plt.figure(figsize=(10.5, 4.1), layout="constrained")
ax_query, ax_found, ax_recall = figure.subplots(1, 3, width_ratios=[1, 6.2, 4.6])
mosaic(ax_query, query)
ax_query.set_title("asked", fontsize=10)
mosaic(ax_found, completed)
ax_found.set_title("found, with their probabilities in %", fontsize=10)
for row, column in torch.cartesian_prod(torch.arange(len(asked)), torch.arange(6)).tolist():
    right = indices[row, column] == asked[row]
    text = f"{100 * probabilities[row, column]:.0f}"
    ax_found.text(
        9 * column + 7.4,
        9 * row + 7.4,
        text,
        ha="right",
        va="bottom",
        fontsize=8,
        color="white",
        bbox={"boxstyle": "round,pad=0.15", "color": PALETTE[2] if right else "0.35"},
    )
recall.plot(ax_recall)
ax_recall.legend(frameon=False, fontsize=8, loc="upper left")
ax_recall.spines[["top", "right"]].set_visible(False)
ax_recall.set_title(f"{len(lower_new)} queries and as many items", fontsize=10)
