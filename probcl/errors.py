"""The package's own exceptions and warnings.

Bad arguments raise the built-in ``ValueError`` or ``TypeError``; these classes exist where a caller may want to
catch one kind of trouble and not another.
"""


class ProbclWarning(UserWarning):
    """A result that should not be trusted without a second look, or an option that theory advises against.

    Examples
    --------
    >>> import warnings
    >>> import torch, probcl as pcl
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", pcl.ProbclWarning)  # for those who would rather stop
    ...     try:
    ...         pcl.FMICLLoss("reverse-kl")
    ...     except pcl.ProbclWarning as warning:
    ...         print(str(warning)[:46])
    ReverseKL() is outside the theory of f-MICL: f
    """


class DataFileError(ValueError):
    """A data file is missing, truncated, damaged or not of the format its name promises.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from probcl import DataFileError
    >>> from probcl.datasets import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.idx")
    ...     _ = path.write_bytes(b"not an IDX file")
    ...     try:
    ...         read_idx(path)
    ...     except DataFileError as error:
    ...         print("refused:", type(error).__name__)
    refused: DataFileError
    """


class CheckpointError(ValueError):
    """A saved model or training checkpoint is damaged, of another version, or made for other shapes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import probcl as pcl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Label(2, 2))
    ...     model.save(f"{folder}/model")
    ...     for path in Path(folder, "model").glob("*.safetensors"):
    ...         _ = path.write_bytes(b"damaged")
    ...     try:
    ...         pcl.BimodalModel.load(f"{folder}/model")
    ...     except pcl.CheckpointError as error:
    ...         print("refused:", type(error).__name__)
    refused: CheckpointError
    """
