"""Side-by-side measurements: one script for each question, all contenders in one process and one run."""
