"""What stands in for the Hugging Face Hub in the tests."""

import shutil
from types import SimpleNamespace

import huggingface_hub
from huggingface_hub import HfApi


class Hub:
    """A repository on a disk, in the place of the Hub, which remembers what it was asked."""

    def __init__(self, folder, monkeypatch, token="secret"):
        self.folder, self.asked, self.token = folder, {}, token
        folder.mkdir()
        for name in ("create_repo", "file_exists", "hf_hub_download", "upload_folder"):
            monkeypatch.setattr(HfApi, name, self.method(name))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def method(self, name):
        def called(api, *args, **kwargs):
            assert api.token == self.token
            self.asked[name] = (args, kwargs)
            return getattr(self, name)(*args, **kwargs)

        return called

    def create_repo(self, repo_id, **kwargs):
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def file_exists(self, repo_id, filename, **kwargs):
        return (self.folder / filename).exists()

    def hf_hub_download(self, repo_id, filename, **kwargs):
        return str(self.folder / filename)

    def upload_folder(self, *, folder_path, **kwargs):
        shutil.copytree(folder_path, self.folder, dirs_exist_ok=True)
        return SimpleNamespace(commit_url="https://hub/commit/1")

    def snapshot_download(self, repo_id, **kwargs):
        """As the cache of huggingface_hub: links to files of other names."""
        self.asked["snapshot_download"] = ((repo_id,), kwargs)
        snapshot = self.folder.with_name("snapshot")
        snapshot.mkdir(exist_ok=True)
        for name in kwargs["allow_patterns"]:
            (snapshot / name).unlink(missing_ok=True)
            (snapshot / name).symlink_to(self.folder / name)
        return str(snapshot)
