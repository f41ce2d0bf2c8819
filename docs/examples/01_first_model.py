"""
A first model
=============

Images of digits and their labels: a model is fitted to pairs of them, and both of its conditionals are looked at.
"""

import matplotlib.pyplot as plt
import torch

import probcl as pcl
from probcl.plotting import PALETTE, mosaic

# %%
# Two encoders
# ------------
# An image and a label are each mapped to ten numbers, and the cosine of the two, divided by a temperature that is
# fitted too, is the score. The data are scikit-learn's digits; nothing is downloaded.

torch.manual_seed(0)
data = pcl.datasets.load_digits()
model = pcl.BimodalModel(pcl.encoders.LeNet(10, image_size=8), pcl.encoders.Label(10))
history = pcl.fit(
    model, data.train, validation=data.validation, epochs=30, batch_size=64, lr=2e-3, schedule="cosine", seed=0
)
print(history)

# %%
# Two conditionals
# ----------------
# A prior, here a bank of images or the ten labels, and the model make a conditional. Conditioned, it is a Pyro
# distribution.

digits = torch.arange(10)
images_of = model.u_given_v(pcl.EmpiricalPrior(data.test.u)).condition(digits)
labels_of = model.v_given_u(pcl.EmpiricalPrior(digits)).condition(data.test.u)

print(f"accuracy on {data.test.n_pairs} test images: {(labels_of.mode == data.test.v).float().mean():.3f}")
print("as diverse as so many images, for each label:", images_of.ess().int().tolist())

# %%
# What they say
# -------------
# Sixteen draws for each label, and the four images that the model is least sure of.

torch.manual_seed(0)
drawn = images_of.sample((16,)).movedim(0, 1)[:, :, 0]
doubtful = labels_of.probs.amax(1).argsort()[:4]

figure = plt.figure(figsize=(10.5, 4.3), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.6, 1], wspace=0.04)
left.suptitle("image given label")
mosaic(left.subplots(), drawn, row_names=[str(digit) for digit in range(10)])

right.suptitle("label given image")
for (picture, bars), index in zip(right.subplots(4, 2, width_ratios=[1, 3.4]), doubtful.tolist(), strict=True):
    mosaic(picture, data.test.u[index][None])
    told = data.test.v[index].item()
    colors = [PALETTE[0] if digit == told else "0.7" for digit in range(10)]
    bars.bar(range(10), labels_of.probs[index], color=colors, width=0.8)
    bars.set(xticks=range(10), yticks=[0, 1], ylim=(0, 1))
    bars.spines[["top", "right"]].set_visible(False)
    bars.tick_params(labelsize=8, length=2)
right.supxlabel("blue: the label in the data", fontsize=9)
