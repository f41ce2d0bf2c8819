"""Similarity graphs: contrastive learning is spectral clustering, checked term by term."""
