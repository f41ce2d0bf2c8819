"""Generation: draws from the learned conditional of one modality given the other.

On a data bank, `resample` draws items of the bank, item i with probability softmax_i(s(u_i, v) + log w_i)
(Baptista, Stuart & Tran 2025, §4). To draw what is in no bank, `fit_image_prior` learns a law of images, and
``model.u_given_v(prior).condition(v).sample((n,))`` tilts it by the score of any contrastive model.
"""

from probcl.generation.autoencoder import Autoencoder
from probcl.generation.image_prior import ImagePrior, draw_codes, fit_image_prior
from probcl.generation.latent import fit_mixture
from probcl.generation.networks import ConvDecoder, ConvEncoder
from probcl.generation.resample import Resampled, resample

__all__ = [
    "Autoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "ImagePrior",
    "Resampled",
    "draw_codes",
    "fit_image_prior",
    "fit_mixture",
    "resample",
]
