"""The loss and its gradient on several ranks are those of one process that has all rows, and so are fits."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import alignment_cases
import distributed_fits
import distributed_worker as worker
import pytest
import torch
from distributed_fits import SETUPS
from distributed_worker import LOSSES, REDUCTIONS, launch
from small_models import normal
from torch import distributed as dist

import probcl as pcl
from probcl import Scores

UNEVEN = (5, 3)
OF_EACH_RANK = ("u", "v", "bias_u", "bias_v")
pytestmark = pytest.mark.usefixtures("one_thread")


# --- scores -----------------------------------------------------------------------------------------------------------


def assert_same_on_ranks(setups, tolerance, world=2):
    setups = list(setups)
    expected = worker.all_scores(setups)
    ranks = launch(world, worker.all_scores, setups)
    for setup, alone, *found in zip(setups, expected, *ranks, strict=True):
        for name, value in alone.items():
            parts = [rank[name] for rank in found]
            for part in [torch.cat(parts)] if name in OF_EACH_RANK else parts:
                torch.testing.assert_close(
                    part, value, rtol=tolerance, atol=tolerance, msg=lambda m, s=setup, n=name: f"{s}, {n}: {m}"
                )


def setups(names, cases, methods, sizes=UNEVEN, dtype=torch.float64):
    for name, case, method in itertools.product(names, cases, methods):
        yield name, case, method, sizes, dtype


def test_every_loss_and_reduction_is_that_of_one_process():
    assert_same_on_ranks(
        [
            *setups(LOSSES | REDUCTIONS, ["l2", "potentials of log-cauchy"], ["dense", "tiled"]),
            *setups(["conditional", "joint", "spectral", "expectations"], alignment_cases.CASES, ["dense", "tiled"]),
            *setups(LOSSES, ["cosine"], ["tiled", "dense"], sizes=(1, 7)),
            *setups(LOSSES, ["cosine"], ["tiled", "dense"], sizes=(7, 1)),
        ],
        tolerance=1e-10,
    )


def test_in_single_precision_losses_agree_to_rounding():
    names = [name for name in LOSSES if name != "expectations"]  # which cancel, and have larger errors of their own
    assert_same_on_ranks(
        setups(names, ["inner", "cosine", "l2"], ["dense", "tiled"], sizes=(9, 4), dtype=torch.float32), 1e-6
    )


@pytest.mark.slow
def test_four_ranks_are_one_process_too():
    assert_same_on_ranks(
        setups(LOSSES | REDUCTIONS, ["l2", "potentials of log-cauchy"], ["dense", "tiled"], sizes=(3, 1, 4, 3)),
        tolerance=1e-10,
        world=4,
    )


def test_data_parallel_encoders_have_the_gradient_of_the_whole_batch():
    expected = distributed_fits.data_parallel_gradients()
    for rank in launch(2, distributed_fits.data_parallel_gradients):
        for ours, theirs in zip(rank, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.fixture
def group(tmp_path):
    """A group of this process alone, in which everything is checked that jaxtyping checks."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_a_group_of_one_changes_nothing(group):
    u, v = normal(5, 4), normal(5, 4, seed=1)
    for method, function in itertools.product(["dense", "tiled"], (LOSSES | REDUCTIONS).values()):
        ours, theirs = (function(Scores(u, v, pcl.L2(), method=method, group=g)) for g in (group, None))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert repr(Scores(u, v, group=group)).startswith("Scores(5 × 5 on 1 ranks")


def test_scores_of_several_ranks_draw_no_samples(group):
    with pytest.raises(NotImplementedError, match="draw on each rank for its own rows"):
        Scores(normal(3, 2), normal(3, 2), group=group).sample()


@pytest.mark.parametrize("function", [pcl.JointLoss(), pcl.ConditionalLoss(diagonal=False)], ids=repr)
def test_dense_scores_of_ranks_have_second_derivatives(group, function):
    u = normal(4, 2)

    def loss(u, bias, group):
        return function(Scores(u, normal(4, 2, seed=1), pcl.L2(), 0.7, "dense", bias_u=bias, group=group))

    hessians = [torch.autograd.functional.hessian(lambda *at, g=g: loss(*at, g), (u, u[:, 0])) for g in (group, None)]
    torch.testing.assert_close(*hessians)


def test_columns_that_nothing_is_possible_in_have_no_gradient(group):
    bias = torch.tensor([0.0, -torch.inf, 0.0, 0.0], dtype=torch.float64)
    gradients = []
    for where in (group, None):
        u = normal(4, 2).requires_grad_()
        sums = Scores(u, normal(4, 2, seed=1), method="tiled", bias_v=bias, group=where).logsumexp(0)
        assert sums[1] == -torch.inf
        gradients += torch.autograd.grad(sums[bias == 0].sum(), u)
    torch.testing.assert_close(*gradients)


# --- fits -------------------------------------------------------------------------------------------------------------


def assert_same_outcomes(found, expected, tolerance=1e-8):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name],
            value,
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_two_ranks_fit_what_one_process_fits():
    for name, alone, *ranks in zip(
        SETUPS, distributed_fits.fits(list(SETUPS)), *launch(2, distributed_fits.fits, list(SETUPS)), strict=True
    ):
        for rank in ranks:
            if name == "loader of shares":  # whose batches are others than those of one process
                assert_same_outcomes(rank, ranks[0], tolerance=0)
                assert rank["step_loss"].shape == alone["step_loss"].shape
                assert rank["loss"][-1] < rank["loss"][0]
            else:
                assert_same_outcomes(rank, alone)
    assert len(alone["step_loss"]) == 6  # stopped by one rank


@pytest.mark.slow
def test_four_ranks_fit_what_one_process_fits():
    names = ["adam", "patience", "data set", "loader", "chunks"]
    expected = distributed_fits.fits(names)
    for rank in launch(4, distributed_fits.fits, names):
        for ours, theirs in zip(rank, expected, strict=True):
            assert_same_outcomes(ours, theirs)


def test_ranks_draw_noise_of_their_own():
    (first,), (second,) = launch(2, distributed_fits.shares_of_noise)
    assert first.shape == second.shape == (25, 40)
    assert not torch.equal(first, second)


def test_a_fit_resumes_on_any_number_of_ranks(tmp_path):
    whole = distributed_fits.outcome("patience")
    assert launch(2, distributed_fits.crashed, str(tmp_path)) == [["fit"], []]
    assert_same_outcomes(distributed_fits.resumed(str(tmp_path)), whole)
    (tmp_path / "rank 0" / "fit").unlink()
    (tmp_path / "rank 0").rmdir()
    distributed_fits.crashed(str(tmp_path))
    for rank in launch(2, distributed_fits.resumed, str(tmp_path)):
        assert_same_outcomes(rank, whole)


def test_ctrl_c_on_one_rank_interrupts_all_at_the_same_step(tmp_path):
    assert launch(2, distributed_fits.interrupted, str(tmp_path)) == [("interrupted", True)] * 2
    assert_same_outcomes(distributed_fits.outcome(resume=tmp_path / "fit"), distributed_fits.outcome())


EXPECTED_ERRORS = [
    ("RuntimeError: rank 1 failed with OSError: pair", "OSError: pair"),
    "ValueError: all ranks must be given the same fit, but on ranks 0 and 1 settings.lr is 0.1 and 1.1",
    "ValueError: all ranks must be given the same fit, but on ranks 0 and 1 pairs.train.contents is",
    "ValueError: all ranks must be given the same fit, but on ranks 0 and 1 checkpoint is False and True",
    "ValueError: all ranks must be given the same fit, but on ranks 0 and 1 first_batch.train.digest is",
    "ValueError: pairs are sampled for rank {other} of 2, on rank {own} of 2",
    (
        "RuntimeError: rank 1 failed with FloatingPointError: training diverged at step 0",
        "FloatingPointError: training diverged at step 0 (epoch 0): embeddings are not finite",
    ),
]


def test_what_cannot_work_is_an_error_on_every_rank(tmp_path):
    for rank, said in enumerate(launch(2, distributed_fits.errors, str(tmp_path))):
        for message, expected in zip(said, EXPECTED_ERRORS, strict=True):
            expected = expected if isinstance(expected, str) else expected[rank]
            assert message.startswith(expected.format(own=rank, other=1 - rank))


@pytest.mark.slow
def test_batches_smaller_than_the_number_of_ranks_are_refused(tmp_path):
    for said in launch(4, distributed_fits.errors, str(tmp_path)):
        assert "batches must have a pair for each of 4 ranks, got 2 pairs" in said[4]


def test_a_killed_rank_ends_the_fit_of_the_others_with_a_message(tmp_path):
    said, nothing = launch(2, distributed_fits.killed, str(tmp_path))
    assert nothing is None
    assert "rank 0 lost contact with another one, which has failed (see its own message), was killed" in said
    assert int(said.split()[0]) < worker.PATIENCE / 2


def torchrun(world, *command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(pcl.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def test_torchrun_is_all_it_takes(tmp_path):
    program = torchrun(2, distributed_fits.__file__, str(tmp_path / "found"))
    assert program.returncode == 0, program.stderr
    expected = [distributed_fits.outcome(), distributed_fits.outcome("joint loss, one sided bound")]
    for rank in (0, 1):
        for ours, theirs in zip(torch.load(tmp_path / f"found.{rank}"), expected, strict=True):
            assert_same_outcomes(ours, theirs)


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_of_torchrun(tmp_path):
    script = tmp_path / "script.py"
    folder = Path(distributed_fits.__file__).parent
    script.write_text(f"import sys; sys.path.insert(0, {str(folder)!r})\nimport distributed_fits\n")
    script.write_text(script.read_text() + "print(distributed_fits.killed(''), flush=True)\n")
    program = torchrun(2, str(script))
    assert program.returncode != 0
    assert "Signal 9 (SIGKILL)" in program.stderr


def test_batch_normalisation_on_several_ranks_warns():
    said = launch(2, worker.warned)
    assert all("normalises each rank's share of a batch by itself" in message for message in said)
