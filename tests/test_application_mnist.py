"""The application of images and labels: it writes what it promises, and the re-gauge repairs the open conditional."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tables_read import rows_of

import probcl as pcl
from applications import mnist, tables
from applications.mnist.__main__ import main
from applications.mnist.experiment import OBJECTIVES, Config, Objective, fit_objective, measure, with_shifts
from probcl.datasets import Pairs, Split

CONFIGURATIONS = Path(mnist.__file__).parent
METRICS = ["accuracy", "NLL", "ECE", "label R@1", "image R@1", "label R@5", "image R@5", "ESS"]
METRICS += ["purity of 16", "distinct of 16", "purity of 1000", "distinct of 1000"]
LARGEST = {"NLL": math.inf, "ESS": 359, "distinct of 16": 16, "distinct of 1000": 359}  # 359 test images
COLUMNS = ["objective", "re-gauge", *METRICS]
KINDS = [(objective.name, regauged) for objective in OBJECTIVES for regauged in ("no", "yes")]
TWO_SIDED, LABEL_GIVEN_IMAGE, _ = OBJECTIVES


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def with_arguments(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["mnist", *arguments])
        main()

    return with_arguments


def measured(objective: Objective, data: Split, config: Config, seed: int = 0) -> list[dict[str, str | float]]:
    return [measure(fitted, data, seed) for fitted in fit_objective(objective, data, config, seed)]


def test_the_module_writes_tables_and_a_figure_and_changes_no_random_state(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    output, random_state = tmp_path / "results", torch.get_rng_state()
    run("--data", "digits", "--epochs", "1", "--seeds", "0", "--output", str(output))

    assert {path.name for path in output.iterdir()} == {"table.md", "table.csv", "table-seeds.csv", "figure.png"}
    means, seeds = rows_of(output / "table.csv"), rows_of(output / "table-seeds.csv")
    assert list(means[0]) == COLUMNS
    assert list(seeds[0]) == ["seed", *COLUMNS]
    assert [(row["objective"], row["re-gauge"]) for row in means] == KINDS
    assert [{"seed": "0", **row} for row in means] == seeds
    for row in means:
        assert all(0 <= float(row[name]) <= LARGEST.get(name, 1) for name in METRICS)
    markdown = (output / "table.md").read_text(encoding="utf-8")
    assert markdown.count("\n| label\\|image | ") == 2
    assert plt.imread(output / "figure.png").std() > 0
    assert not plt.get_fignums()
    assert f"Wrote {output}/" in capsys.readouterr().out.replace("\n", "")
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_directory_of_mnist_files_is_refused_for_digits(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--data", "digits", "--data-dir", str(tmp_path))
    assert stop.value.code == 2
    assert "--data-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given_directory", "environment", "directory"),
    [("here", "there", Path("here")), (None, "there", Path("there/mnist")), (None, "", None), (None, None, None)],
)
def test_mnist_comes_from_the_directory_given_or_from_probcl_data_or_is_downloaded(
    run, monkeypatch, given_directory, environment, directory
):
    class Loaded(Exception):
        pass

    def load_mnist(root: Path | None, *, download: bool) -> Split:
        assert root == directory
        assert download is (directory is None)
        raise Loaded

    monkeypatch.setattr(pcl.datasets, "load_mnist", load_mnist)
    monkeypatch.delenv("PROBCL_DATA", raising=False)
    if environment is not None:
        monkeypatch.setenv("PROBCL_DATA", environment)
    with pytest.raises(Loaded):
        run("--data", "mnist", *(("--data-dir", given_directory) if given_directory else ()))


def test_shifts_move_images_by_one_pixel_and_fill_with_zeros():
    image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    expected = torch.tensor(
        [
            [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
            [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]],  # down
            [[4.0, 5.0, 6.0], [0.0, 0.0, 0.0]],  # up
            [[0.0, 1.0, 2.0], [0.0, 4.0, 5.0]],  # right
            [[2.0, 3.0, 0.0], [5.0, 6.0, 0.0]],  # left
        ]
    )
    images, labels = torch.stack([image, 10 * image])[:, None], torch.tensor([7, 3])
    shifted = with_shifts(Pairs(images, labels))
    assert shifted.v.tolist() == 5 * [7, 3]
    assert torch.equal(shifted.u[0::2, 0], expected)
    assert torch.equal(shifted.u[1::2, 0], 10 * expected)


words = st.text("abcdefgh", min_size=1, max_size=12)


@given(
    names=st.lists(words, min_size=2, max_size=12, unique=True),
    label=words,
    values=st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=12),
    width=st.integers(34, 120),
)
def test_wide_tables_are_divided_so_that_each_fits_and_no_column_is_lost(names, label, values, width):
    rows = [{name: value if i else label for i, (name, value) in enumerate(zip(names, values, strict=False))}]

    def space(column: str) -> int:
        return 3 + max(len(column), len(tables._shown(rows[0][column])))

    parts = list(tables._fitting(names, rows, width))
    assert all(part[0] == names[0] for part in parts)
    assert [column for part in parts for column in part[1:]] == names[1:]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        assert sum(map(space, part)) <= width
        assert following is None or sum(map(space, part)) + space(following[1]) > width


@pytest.mark.parametrize("width", [30, 47, 80])
def test_a_printed_table_is_never_wider_than_the_terminal_nor_cut(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    row = {"objective": "label|image"} | {f"column {i}": 0.125 * i for i in range(9)}
    tables.report("Table", [row], tmp_path / "table")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    for i in range(9):
        assert printed.count(f"column {i}") == 1


def test_a_table_is_written_in_full_as_csv_and_as_shown_as_markdown(tmp_path, capsys):
    rows = [{"what": "a|b", "x|y": 1 / 3}, {"what": "c", "x|y": 1234.56}]
    tables.report("Title", rows, tmp_path / "new" / "table", note="A note.")
    assert rows_of(tmp_path / "new" / "table.csv") == [
        {"what": "a|b", "x|y": str(1 / 3)},
        {"what": "c", "x|y": "1234.56"},
    ]
    assert (tmp_path / "new" / "table.md").read_text() == (
        "# Title\n\n| what | x\\|y |\n| --- | --: |\n| a\\|b | 0.333 |\n| c | 1234.6 |\n\nA note.\n"
    )
    assert len(list((tmp_path / "new").iterdir())) == 2
    assert "A note." in capsys.readouterr().out


@pytest.mark.slow
def test_the_regauge_of_a_digit_classifier_gives_its_draws_the_diversity_of_the_two_sided_fit():
    config, data = Config.read(CONFIGURATIONS / "digits.toml"), pcl.datasets.load_digits()
    two_sided, _ = measured(TWO_SIDED, data, config)
    fitted, regauged = measured(LABEL_GIVEN_IMAGE, data, config)
    assert fitted["accuracy"] >= 0.97
    assert regauged["accuracy"] == pytest.approx(fitted["accuracy"], abs=1e-9)
    assert fitted["ESS"] < two_sided["ESS"] / 2
    assert regauged["ESS"] == pytest.approx(two_sided["ESS"], rel=0.25)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("PROBCL_DATA" not in os.environ, reason="set PROBCL_DATA to a folder with mnist/ in it")
def test_a_label_given_image_fit_classifies_mnist():
    config = Config.read(CONFIGURATIONS / "mnist.toml")
    data = pcl.datasets.load_mnist(Path(os.environ["PROBCL_DATA"]) / "mnist")
    fitted, _ = measured(LABEL_GIVEN_IMAGE, data, config)
    assert fitted["accuracy"] >= 0.985
