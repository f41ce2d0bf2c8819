"""Models on the Hugging Face Hub: the three methods that its users know."""

from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from probcl.errors import CheckpointError
from probcl.files import require_path

if TYPE_CHECKING:
    from probcl.model import BimodalModel

M = TypeVar("M", bound="HubMixin")


class HubMixin:
    """`save_pretrained`, `push_to_hub` and `from_pretrained`, as of ``huggingface_hub.PyTorchModelHubMixin``.

    A model's folder is what the Hub expects, ``model.safetensors`` and ``config.json``, with a card, ``README.md``.
    Loading runs no code from the Hub. huggingface_hub is imported by what speaks to the Hub, and by nothing else.
    """

    def save_pretrained(self, directory: str | Path, *, card: str | None = None) -> None:
        """Save into a directory, as `save` does, with a model card.

        Parameters
        ----------
        directory
            A ``README.md`` there is replaced only if it is as probcl wrote it.
        card
            The text of the card; by default what `probcl.model_card.model_card` makes of the model alone. Give it
            ``model_card(model, loss=..., metrics=..., license=...)`` to say more.

        Raises
        ------
        TypeError
            If `directory` is not a path.

        Warns
        -----
        ProbclWarning
            If a ``README.md`` that was written or edited by hand was kept.
        """
        self._save(require_path("directory", directory), card, None)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | None = None,
        commit_message: str = "Push model using probcl.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload the model with its card in one commit, into a repository that is made if need be.

        Parameters
        ----------
        repo_id
            ``"user/name"``.
        card
            As in `save_pretrained`; one that was edited on the Hub is kept.
        commit_message, private, token, branch, create_pr
            As in huggingface_hub.

        Returns
        -------
        str
            The address of the commit.

        Raises
        ------
        ImportError
            If huggingface_hub is not installed.

        Warns
        -----
        ProbclWarning
            If a card that was written or edited by hand was kept.
        """
        api = _huggingface_hub().HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            if api.file_exists(repo_id, "README.md", revision=branch):
                there = Path(api.hf_hub_download(repo_id, "README.md", revision=branch))
                Path(folder, "README.md").write_bytes(there.read_bytes())
            self._save(Path(folder), card, repo_id)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls: type[M],
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **modules: Any,
    ) -> M:
        """Load a model from the Hub, or from a folder as `load` does, on the CPU.

        Parameters
        ----------
        name_or_path
            A folder, or ``"user/name"`` on the Hub.
        revision, token, cache_dir, force_download, local_files_only
            As in huggingface_hub.
        **modules
            `encoder_u`, `encoder_v`, `alignment`, as in `load`.

        Raises
        ------
        ImportError
            If huggingface_hub is not installed.
        CheckpointError
            As from `load`; and if there is no such folder, nor such a repository that can be had from the Hub.
        """
        path = require_path("name_or_path", name_or_path)
        if isinstance(name_or_path, str) and not path.is_dir():
            path = _downloaded(
                name_or_path,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        loaded: M = cast(Any, cls).load(path, **modules)
        return loaded

    def _save(self, directory: Path, card: str | None, repo_id: str | None) -> None:
        from probcl.model_card import CARD_FILE, model_card, write_card

        model = cast("BimodalModel", self)
        model.save(directory)
        write_card(directory / CARD_FILE, model_card(model, repo_id=repo_id) if card is None else card)


def _downloaded(name: str, **options: Any) -> Path:
    from probcl import __version__
    from probcl.model import CONFIG_FILE, WEIGHTS_FILE

    hub = _huggingface_hub()
    files = [WEIGHTS_FILE, CONFIG_FILE]
    try:
        found = hub.snapshot_download(
            name, allow_patterns=files, library_name="probcl", library_version=__version__, **options
        )
    except (OSError, ValueError) as error:  # those of huggingface_hub are of these
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"no model {name!r}: neither is there such a folder (in {Path.cwd()}), nor could a repository of that name "
            f"be had from the Hugging Face Hub: {type(error).__name__}: {said}"
        ) from error
    return Path(found)


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError('the Hugging Face Hub needs the extra: pip install "probcl[hub]"') from error
    return huggingface_hub
