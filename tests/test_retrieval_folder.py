import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from library_cases import PHI, U, V, brute_force, library_model, shards_of
from small_models import normal, seeded

import probcl as pcl
from probcl import files
from probcl.retrieval import Library, folder
from probcl.retrieval.folder import MANIFEST

MODEL = library_model()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A library of 60 items in shards of 7."""
    shards_of(monkeypatch, 7)
    Library.create(MODEL, tmp_path / "library", u=U, log_prior=PHI)
    return tmp_path / "library"


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def assert_holds(library, known, k=5):
    assert library.ids.tolist() == known
    scores = torch.full((60, 9), -torch.inf, dtype=torch.float64)
    scores[known] = brute_force(MODEL, phi=PHI)[known]
    torch.testing.assert_close(library.topk(V, k).values, scores.T.topk(k).values)
    torch.testing.assert_close(library.log_normalizer(V), scores.logsumexp(0))


def test_a_folder_gives_what_memory_does(path):
    on_disk, in_memory = Library.open(path, MODEL), Library(MODEL, u=U, log_prior=PHI)
    assert torch.equal(on_disk.topk(V).indices, in_memory.topk(V).indices)
    assert torch.equal(on_disk.embeddings, in_memory.embeddings)
    assert torch.equal(on_disk.log_prior, in_memory.log_prior)
    assert torch.equal(on_disk.sample(V, 99, generator=seeded()), in_memory.sample(V, 99, generator=seeded()))
    assert repr(on_disk) == f"Library(60 items of u, width 4, with log_prior, in {path})"
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_items_are_mapped_and_not_read(path):
    shard = Library.open(path, MODEL, verify=False).collection.shards[0]
    lines = Path("/proc/self/maps") if Path("/proc/self/maps").exists() else pytest.skip("there is no /proc")
    held = shard.load()
    assert shard.path.name in lines.read_text()
    del held
    assert shard.path.name not in lines.read_text()


def test_a_library_in_memory_can_be_saved_and_opened(tmp_path):
    for side, items, given in (("u", U, V), ("v", V, U)):
        library = Library(MODEL, **{side: items})
        library.save(tmp_path / side)
        opened = Library.open(str(tmp_path / side), MODEL)
        assert opened.side == side
        assert torch.equal(opened.topk(given).values, library.topk(given).values)


def test_adding_and_removing_is_written_at_once_and_ids_are_never_given_twice(tmp_path, monkeypatch):
    shards_of(monkeypatch, 7)
    library = Library.create(MODEL, tmp_path, u=U[:20], log_prior=PHI[:20])
    library.remove(torch.tensor([3, 18, 19]))
    known = [i for i in range(18) if i != 3]
    assert_holds(Library.open(tmp_path, MODEL), known)
    again = Library.open(tmp_path, MODEL)
    assert again.add(U[20:40], log_prior=PHI[20:40]).tolist() == list(range(20, 40))
    assert_holds(Library.open(tmp_path, MODEL), [*known, *range(20, 40)])
    again.remove(torch.tensor(known))
    assert_holds(again, list(range(20, 40)))
    assert_holds(Library.open(tmp_path, MODEL), list(range(20, 40)))
    assert len(list(tmp_path.iterdir())) == 1 + len(again.collection.shards)


def test_shards_that_no_change_concerns_stay_the_files_they_were(path):
    before = contents(path)
    Library.open(path, MODEL).remove(torch.tensor([8]))
    after = contents(path)
    assert len(before.items() & after.items()) == 8


def test_a_library_under_another_name_of_its_folder_is_the_same_one(path, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    library = Library.open("library", MODEL)
    before = contents(path)
    library.save(path)
    library.save("link")
    assert contents(path) == before
    monkeypatch.chdir("/")
    assert_holds(library, list(range(60)))


def test_a_copy_stands_alone_and_replaces_what_was_there(path, tmp_path):
    Library(MODEL, v=V).save(tmp_path / "copy")
    Library.open(path, MODEL).save(tmp_path / "copy")
    shutil.rmtree(path)
    assert_holds(Library.open(tmp_path / "copy", MODEL), list(range(60)))
    assert len(list((tmp_path / "copy").iterdir())) == 10


def test_a_folder_with_a_library_is_not_written_over_by_a_new_one(path):
    with pytest.raises(FileExistsError, match=r"there is a library at .* already"):
        Library.create(MODEL, path, u=U)


def test_the_rest_of_the_model_may_change_but_not_the_encoder(path):
    warmer = library_model(pcl.L2(), temperature=2.0)
    with torch.no_grad():
        warmer.encoder_v.weight.mul_(2)
    expected = Library(warmer, u=U, log_prior=PHI).topk(V)
    torch.testing.assert_close(Library.open(path, warmer).topk(V), expected)
    other, wider = library_model(), pcl.BimodalModel(pcl.encoders.MLP(5, 4), pcl.encoders.Linear(3, 4))
    with torch.no_grad():
        other.encoder_u.weight[0, 0] += 1e-9
    for model in (other, wider, library_model(dtype=torch.float32)):
        with pytest.raises(pcl.CheckpointError, match=r"was embedded by another encoder_u"):
            Library.open(path, model)


def first_shard(path):
    return path / json.loads((path / MANIFEST).read_text())["shards"][0]["path"]


def flip(file, position=-1):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def rewrite(path, **changes):
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | changes))


DAMAGE = {
    "truncated shard": (lambda p: os.truncate(first_shard(p), 100), r"shard-\w+.safetensors was truncated or altered"),
    "empty shard": (lambda p: os.truncate(first_shard(p), 0), r"shard-\w+.safetensors was truncated or altered"),
    "flipped bit": (lambda p: flip(first_shard(p)), r"shard-\w+.safetensors was altered: its contents"),
    "missing shard": (lambda p: first_shard(p).unlink(), r"shard-\w+.safetensors cannot be read"),
    "missing manifest": (lambda p: (p / MANIFEST).unlink(), r"no library at .*: it has no library.json"),
    "truncated manifest": (lambda p: os.truncate(p / MANIFEST, 50), r"library.json is damaged"),
    "binary manifest": (lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe\x00"), r"library.json is damaged"),
    "another manifest": (lambda p: (p / MANIFEST).write_text("[1]"), r"library.json is damaged"),
    "another kind": (lambda p: rewrite(p, kind="probcl model"), r"not of a probcl library: it says 'probcl model'"),
    "another version": (lambda p: rewrite(p, format_version=2), r"of format version 2; this probcl reads version 1"),
    "altered manifest": (lambda p: rewrite(p, next_id=3), r"library.json was altered: it does not match its digest"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named(damage, path):
    do, message = DAMAGE[damage]
    do(path)
    with pytest.raises(pcl.CheckpointError, match=message):
        Library.open(path, MODEL)


def test_what_was_damaged_after_the_library_was_opened_is_named_when_it_is_read(path):
    for do, message in [
        (lambda p: first_shard(p).unlink(), r"shard-\w+.safetensors is missing"),
        (lambda p: first_shard(p).write_bytes(b"nothing"), r"shard-\w+.safetensors is damaged or not a shard"),
        (lambda p: shutil.copy(last_shard(p), first_shard(p)), r"was altered: it has 4 items, its manifest says 7"),
    ]:
        library = Library.open(path, MODEL, verify=False)
        kept = first_shard(path).read_bytes()
        do(path)
        with pytest.raises(pcl.CheckpointError, match=message):
            library.topk(V)
        first_shard(path).write_bytes(kept)


def last_shard(path):
    return path / json.loads((path / MANIFEST).read_text())["shards"][-1]["path"]


def test_without_verification_only_lengths_are_compared(path):
    flip(first_shard(path))
    Library.open(path, MODEL, verify=False)
    os.truncate(first_shard(path), 100)
    with pytest.raises(pcl.CheckpointError, match=r"truncated or altered"):
        Library.open(path, MODEL, verify=False)


class Crash(BaseException):
    pass


def crash_at(monkeypatch, number):
    """Let the process die at this write; what a dead process would not do is not done."""
    write, count = folder.write_atomically, iter(range(1000))

    def crashing(path, content):
        if next(count) == number:
            raise Crash
        write(path, content)

    monkeypatch.setattr(folder, "write_atomically", crashing)
    monkeypatch.setattr(folder, "_remove_unlisted", lambda _: None)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "change",
    [lambda library: library.add(U[:10]), lambda library: library.remove(torch.tensor([1, 30, 59]))],
    ids=["add", "remove"],
)
def test_a_crash_before_the_manifest_is_written_leaves_the_old_library(change, number, path):
    writes = {"add": 2, "remove": 3}
    library = Library.open(path, MODEL)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, number)
        try:
            change(library)
        except Crash:
            crashed = True
        else:
            crashed = False
    reopened = Library.open(path, MODEL)
    if crashed:
        assert_holds(library, list(range(60)))
        assert_holds(reopened, list(range(60)))
    else:
        assert number >= min(writes.values())
        assert len(reopened) in (57, 70)
    reopened.remove(torch.tensor([0]))
    assert len(list(path.iterdir())) == 1 + len(reopened.collection.shards)  # what the dead one left is gone


def test_an_error_while_items_are_added_leaves_the_old_library_and_nothing_else(path):
    before, library = contents(path), Library.open(path, MODEL)

    def batches():
        yield normal(30, 5)
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="the source broke off"):
        library.add(batches())
    assert contents(path) == before
    assert_holds(library, list(range(60)))


def test_a_write_beside_a_manifest_that_cannot_be_read_removes_no_shard(path):
    library = Library.open(path, MODEL)
    shards = {name for name in contents(path) if name != MANIFEST}
    (path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match=r"^u must be finite"):
        library.add(U * torch.nan)
    assert shards <= contents(path).keys()


def test_files_that_are_no_part_of_it_do_not_hurt_and_left_overs_are_tidied_away(path):
    (path / "notes.txt").write_text("mine")
    (path / "shard-0123456789abcdef.safetensors").write_bytes(b"half a sha")
    (path / f".shard-ab.safetensors.{files._HOST}-999999999-ab.tmp").write_bytes(b"ha")
    library = Library.open(path, MODEL)
    assert_holds(library, list(range(60)))
    library.remove(torch.tensor([59]))
    assert_holds(Library.open(path, MODEL), list(range(59)))
    assert contents(path).keys() == {"notes.txt", MANIFEST, *(shard.path.name for shard in library.collection.shards)}


def test_a_folder_that_cannot_be_written_to_can_be_used(path, monkeypatch):
    before = contents(path)
    monkeypatch.setattr(Path, "open", refuse_to_write(Path.open))
    library = Library.open(path, MODEL)
    assert_holds(library, list(range(60)))
    library.sample(V, 3)
    with pytest.raises(PermissionError):
        library.add(U)
    with pytest.raises(PermissionError):
        library.remove(torch.tensor([0]))
    assert_holds(library, list(range(60)))
    assert contents(path) == before


def refuse_to_write(open_):
    """Permissions do not hold for the superuser, as whom tests may run."""

    def opening(self, mode="r", *arguments, **options):
        if set(mode) & set("wxa+"):
            raise PermissionError(f"[Errno 13] Permission denied: {self}")
        return open_(self, mode, *arguments, **options)

    return opening


def test_what_another_process_has_changed_is_not_written_over(path):
    first, second = Library.open(path, MODEL), Library.open(path, MODEL)
    first.remove(torch.tensor([3]))
    before = contents(path)
    for change in (lambda: second.add(U[:4]), lambda: second.remove(torch.tensor([5]))):
        with pytest.raises(pcl.CheckpointError, match="another process"):
            change()
    assert contents(path) == before
    assert_holds(Library.open(path, MODEL), [i for i in range(60) if i != 3])


def test_a_second_writer_is_refused_while_the_first_is_at_work(path):
    library = Library.open(path, MODEL)

    def batches():
        yield U[:10]
        with pytest.raises(BlockingIOError, match="another process is writing"):
            Library.open(path, MODEL).remove(torch.tensor([0]))
        yield U[10:20]

    assert len(library.add(batches())) == 20
    assert len(Library.open(path, MODEL)) == 80
