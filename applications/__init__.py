"""Applications of probcl, on its public interface only. Run each as ``python -m applications.NAME``."""
