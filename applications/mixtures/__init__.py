"""Gaussian mixtures: contrastive learning finds the Fisher subspace, from pairs alone."""
