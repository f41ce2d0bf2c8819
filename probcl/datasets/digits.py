"""Real handwritten digits that come with scikit-learn, so that nothing is downloaded."""

import torch

from probcl.datasets.pairs import Pairs, Split, hold_out, part_size

_WHITEST = 16.0


def load_digits(test_fraction: float = 0.2, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """Load the 1,797 images of the UCI optical-recognition test set, paired with their labels.

    Parameters
    ----------
    test_fraction, validation_fraction : float
        Parts of all 1,797 pairs to set aside, drawn with every label in proportion. The test set depends on
        `test_fraction` and `seed` only. Either may be 0, for an empty set.
    seed : int
        Determines the split.

    Returns
    -------
    Split
        In each part `u` holds the images, float32 of shape (n, 1, 8, 8) in [0, 1], and `v` the labels, int64
        of shape (n,) in 0..9.

    Raises
    ------
    ValueError
        If a fraction lies outside its range, or is too small or too large for each part to have every label.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998.

    Examples
    --------
    >>> import probcl as pcl
    >>> digits = pcl.datasets.load_digits(test_fraction=0.2)
    >>> digits.train.u.shape, digits.train.v[:5], digits.test.n_pairs
    (torch.Size([1258, 1, 8, 8]), tensor([0, 1, 2, 3, 4]), 359)
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32).unsqueeze(1) / _WHITEST
    pairs = Pairs(images, torch.from_numpy(digits.target).to(torch.int64))

    total = pairs.n_pairs
    test_size = part_size("test_fraction", test_fraction, total)
    validation_size = part_size("validation_fraction", validation_fraction, total)
    rest, test = hold_out(torch.arange(total), pairs.v, test_size, seed)
    train, validation = hold_out(rest, pairs.v[rest], validation_size, seed)
    return Split(pairs.take(train), pairs.take(validation), pairs.take(test))
