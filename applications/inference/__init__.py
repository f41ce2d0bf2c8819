"""Simulation-based inference on two tasks whose posteriors are known: how close a fitted model comes, and how fast."""
