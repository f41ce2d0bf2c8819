import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import normal
from torch.testing import assert_close

from probcl import L2, Cosine, Scores
from probcl.kernels import TritonKernel, triton_kernel, triton_launch
from probcl.kernels.triton_tiles import Tile, backward_tile, forward_tile

TESTS = Path(__file__).parent
NUMERICS = TESTS / "triton_numerics.py"

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

# Compute capability: shared memory of a block, in bytes (CUDA programming guide, technical specifications).
GPUS = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter: when Triton is first imported decides how its programs are run."""
    command = [sys.executable, *arguments]
    variables = os.environ | environment
    return subprocess.run(command, env=variables, cwd=TESTS.parent, capture_output=True, text=True, check=False)


def run_numerics(*options: str, **environment: str) -> None:
    result = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(NUMERICS), *options, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d\d passed", result.stdout), result.stdout


def test_main_numerics_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    run_numerics("-k", "alignment or dimension or convergence", TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
def test_all_numerics_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    run_numerics(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@on_gpu
def test_numerics_on_a_gpu() -> None:
    run_numerics(TRITON_INTERPRET="0")


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [64, 200, 700])
def test_many_pairs_on_a_gpu(d: int, dtype: torch.dtype) -> None:
    n = 20_000
    generator = torch.Generator("cuda").manual_seed(0)
    u, noise = (torch.randn(n, d, generator=generator, device="cuda") / d**0.25 for _ in range(2))
    pairs = u.to(dtype), (u + 0.5 * noise).to(dtype)
    results = []
    for method, precision in (("triton", dtype), ("tiled", torch.float64)):
        x, y = (side.to(precision, copy=True).requires_grad_() for side in pairs)
        scores = Scores(x, y, temperature=0.5, method=method)
        loss = scores.diagonal_nll(0).mean() + scores.diagonal_nll(1).mean() + scores.logsumexp()
        results.append((loss.detach().double(), *(g.double() for g in torch.autograd.grad(loss, (x, y)))))
    relative = 1e-5 if dtype == torch.float32 else 1e-2
    assert_close(results[0][0], results[1][0], rtol=1e-5, atol=0)
    for ours, exact in zip(results[0][1:], results[1][1:], strict=True):
        assert (ours - exact).norm() <= relative * exact.norm()


@on_gpu
def test_auto_takes_the_programs_where_they_serve() -> None:
    pytest.importorskip("triton")
    u = torch.randn(4096, 16, device="cuda")
    assert isinstance(Scores(u, u, L2())._kernel, TritonKernel)
    assert isinstance(Scores(u, u, Cosine())._kernel, TritonKernel)
    assert not isinstance(Scores(u.double(), u.double())._kernel, TritonKernel)
    assert not isinstance(Scores(u[:100], u[:100])._kernel, TritonKernel)


def test_tensor_cores_multiply_single_precision_only_if_torch_may_use_tf32() -> None:
    assert triton_kernel._precision() == "ieee"
    torch.set_float32_matmul_precision("high")
    try:
        assert triton_kernel._precision() == "tf32x3"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_on_a_cpu_auto_takes_no_programs() -> None:
    assert not triton_kernel.can_fuse(normal(3, 2, dtype=torch.float32), linear=True)


def test_on_a_cpu_the_programs_are_refused() -> None:
    pytest.importorskip("triton")
    if triton_launch.programs().INTERPRETED:
        pytest.skip("the interpreter serves a CPU")
    u = normal(3, 2, dtype=torch.float32)
    with pytest.raises(ValueError, match="'triton' needs embeddings on a CUDA device, got cpu"):
        Scores(u, u, method="triton")


def test_the_package_is_imported_without_triton() -> None:
    result = run_python("-c", "import probcl, sys; print('triton' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


def test_without_triton_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_launch.programs.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "probcl.kernels.triton_programs", raising=False)
    u = normal(3, 2, dtype=torch.float32)
    with pytest.raises(ImportError, match=re.escape('pip install "probcl[triton]"')):
        Scores(u, u, method="triton")


TABLE = [(torch.bfloat16, "ieee"), (torch.float16, "ieee"), (torch.float32, "ieee"), (torch.float32, "tf32x3")]
FAST = [(90, torch.bfloat16, "ieee", 256), (89, torch.float32, "ieee", 64)]
SLOW = [
    (gpu, dtype, precision, d)
    for gpu in GPUS
    for dtype, precision in TABLE
    for d in (64, 128, 256, 512)
    if (gpu, dtype, precision, d) not in FAST
]


@pytest.mark.parametrize(
    ("gpu", "dtype", "precision", "d"), FAST + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_programs_compile_and_fit(
    gpu: int, dtype: torch.dtype, precision: str, d: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes no GPU: what a tile needs of registers and shared memory is there in it."""
    pytest.importorskip("triton")
    if triton_launch.programs().INTERPRETED:
        pytest.skip("the interpreter does not compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    tiles = {
        "log_sum_exps": forward_tile(dtype, d),
        "gradients": backward_tile(dtype, d, precision, GPUS[gpu]),
    }
    for name, tile in tiles.items():
        shared_memory, spilled = compile_program(name, tile, gpu, dtype, precision, d, tmp_path)
        assert shared_memory <= GPUS[gpu]
        assert spilled <= 128


def compile_program(
    name: str, tile: Tile, gpu: int, dtype: torch.dtype, precision: str, d: int, folder: Path
) -> tuple[int, int]:
    """Compile a program with everything it can be asked for; return its shared memory and its stack, in bytes."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    program = getattr(triton_launch.programs(), name)
    factors = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    integers = dict.fromkeys(("first", "n", "m", "d", "span", "offset"), "i32")
    types = integers | {"x": factors, "y": factors, "ceiling": "fp32"}
    constants = {
        **{key: value for key, value in tile.options(d).items() if key.isupper()},
        "DIAGONAL": False,
        "PRECISION": precision,
        "WIDEN": False,
        "BY_ROW": True,
        "BY_COLUMN": True,
        "SLICE": tile.slice,
        **triton_launch.weights(dtype, precision),
    }
    signature = {key: types.get(key, "constexpr" if key in constants else "*fp32") for key in program.arg_names}
    # As at a launch: memory is aligned, and sizes happen to be.
    aligned = {(k,): [["tt.divisibility", 16]] for k, key in enumerate(signature) if key not in constants}
    aligned.pop((program.arg_names.index("ceiling"),))
    source = ASTSource(program, signature, {key: constants[key] for key in signature.keys() & constants}, aligned)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", gpu, 32), options=options)
    (folder / "cubin").write_bytes(compiled.asm["cubin"])
    report = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "-res-usage", folder / "cubin"], capture_output=True, text=True, check=True
    )
    stack = re.search(r"STACK:(\d+)", report.stdout)
    assert stack is not None, report.stdout
    return compiled.metadata.shared, int(stack[1])
