"""Gaussian pairs, whose law is known: what each objective learns of it, and when it has learned all it can."""
