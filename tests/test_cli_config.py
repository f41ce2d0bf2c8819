"""The config of a fit: what is refused and how it is said, and that nothing makes its parser fall over."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_cases import DIGITS, vector_config
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from probcl.cli import documents
from probcl.cli.config import FitConfig, config_from, read_config, written
from probcl.cli.errors import ConfigError
from probcl.cli.schema import plain
from probcl.named import ALIGNMENTS, ENCODERS, KERNELS, LOSSES

MINIMAL = {"data": "digits", "model": {"encoder_u": "lenet", "encoder_v": "label"}}


def with_value(path: str, value: object) -> dict:
    """The minimal config with another value at a path."""
    config = {"data": "digits", "model": {"encoder_u": {"name": "lenet"}, "encoder_v": "label"}}
    *above, last = path.split(".")
    place: dict = config
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return config


def problems(value: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_from(value)
    return caught.value.problems


@pytest.mark.parametrize("text", [DIGITS, vector_config()], ids=["digits", "vectors"])
def test_a_config_written_in_full_is_the_same_config(text: str) -> None:
    config = config_from(documents.parse(text, ".yaml"))
    again = documents.parse(written(config), ".yaml")
    assert config_from(again) == config
    assert again == plain(config)
    assert again["training"]["lr"] == config.training.lr


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    toml = (
        'seed = 4\n[data]\nname = "digits"\n[model]\nencoder_u = "lenet"\nencoder_v = "label"\n[training]\nlr = 1e-3\n'
    )
    (tmp_path / "a.toml").write_text(toml)
    yaml = "seed: 4\ndata: {name: digits}\nmodel: {encoder_u: lenet, encoder_v: label}\ntraining: {lr: 1e-3}\n"
    (tmp_path / "a.yaml").write_text(yaml)
    assert read_config(tmp_path / "a.toml") == read_config(tmp_path / "a.yaml")
    assert tomllib.loads(toml)["seed"] == 4


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("trainin", {}, "trainin: unknown; did you mean training?"),
        ("training.epoch", 3, "training.epoch: unknown; did you mean epochs?"),
        ("training.epochs", 0, "training.epochs: must be at least 1, got 0"),
        ("training.epochs", True, "training.epochs: must be an integer, got true"),
        ("training.epochs", 2.5, "training.epochs: must be an integer, got 2.5"),
        ("training.epochs", 1 << 80, "training.epochs: must be an integer of at most 2^53, got a huge integer"),
        ("training.lr", "fast", "training.lr: must be a number, got 'fast'"),
        ("training.lr", float("nan"), "training.lr: must be finite, got nan"),
        ("training.validation", 1.0, "training.validation: must be above 0 and below 1, got 1.0"),
        ("training.optimizer", "adma", "training.optimizer: must be one of adam, adamw, sgd, lbfgs, got 'adma'"),
        ("training.amp", 3, "training.amp: must be true or false, or auto, got 3"),
        ("training.warmup", 1000, "training.warmup: must be at least 0 epochs, fewer than the fit has, got 1000.0"),
        ("model.temperature", -1, "model.temperature: must be above 0, got -1"),
        ("model.alignment", "cosin", "model.alignment.name: no alignment is called 'cosin'; did you mean cosine?"),
        ("model.alignment", {"name": "power"}, "model.alignment.gamma: is missing"),
        (
            "model.alignment",
            {"name": "power", "gamma": -1},
            "model.alignment: gamma must be finite and positive, got -1.0",
        ),
        ("model.encoder_u", {"name": "mlp"}, "model.encoder_u.out_features: is missing"),
        (
            "model.encoder_u",
            {"name": "mlp", "out_features": 3, "hidden": [8, "x"]},
            "model.encoder_u.hidden[1]: must be an integer, got 'x'",
        ),
        ("loss", {"name": "rince", "lam": "2/n"}, "loss.lam: must be a number, or 1/n, got '2/n'"),
        ("loss", {"name": "rince", "q": 2}, "loss: q must lie between 0 and 1, got 2.0"),
        (
            "loss",
            {"name": "f-micl", "divergence": "perason"},
            "loss.divergence.name: no divergence is called 'perason'; did you mean pearson?",
        ),
        ("data", "digit", "data.name: no data source is called 'digit'; did you mean digits?"),
        ("data", {"u": "a.npy", "v": "b.npy", "w": "c"}, "data.w: unknown; known: u, v"),
        ("data", {"u": "a.npy"}, "data.v: is missing"),
        ("data", {"u": "a.txt", "v": "b.npy"}, "data.u: a.txt must end in one of .npy, .npz, .safetensors"),
        ("data", {"name": "mnist"}, "data: needs either path, the folder of the four files, or download: true"),
        ("data", {"u": {"path": "a.npy", "key": "x"}, "v": "b.npy"}, "data.u: key is for .npz and .safetensors"),
        ("output", "a\0b", "output: must be a text without control characters"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(path: str, value: object, said: str) -> None:
    (problem,) = problems(with_value(path, value))
    assert problem.startswith(said)
    assert "\n" not in problem


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = problems({"data": "digits", "model": {"encoder_u": "lenet"}, "seed": -1, "colour": "red"})
    assert [line.split(":")[0] for line in said] == ["colour", "model.encoder_v", "seed"]


def test_a_pickle_is_refused_with_the_reason() -> None:
    (said,) = problems(with_value("data", {"u": "u.pt", "v": "v.npy"}))
    assert "pickle" in said
    assert "safetensors" in said


def test_patience_needs_validation_pairs() -> None:
    assert config_from(with_value("training", {"patience": 3})).training.patience == 3  # digits bring their own
    config = with_value("training", {"patience": 3}) | {"data": "two-moons"}
    assert problems(config) == [
        "training.patience: needs validation pairs; give training.validation, a fraction of the pairs"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [", "not YAML: line 1, column 8: "),
        ("seed: 1\nseed: 2", "not YAML: line 2, column 1: 'seed' is given twice"),
        ("a: !!python/object/apply:os.system [ls]", "not YAML: line 1, column 4: could not determine a constructor"),
        ("&a {a: *a}", "a: unknown"),
        ("{" * 5000, "not a config: the YAML is nested too deeply"),
        ("", "config: must be a mapping, got nothing"),
    ],
)
def test_a_document_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(documents.parse(text, ".yaml"))
    assert caught.value.problems[0].startswith(said)


def test_words_that_yaml_1_1_mistakes_are_what_they_look_like() -> None:
    read = documents.parse("{a: 1e-3, b: no, c: 2024-01-01, d: 0x10, e: 010, f: 1_000, g: true, h: 12:30}", ".yaml")
    assert read == {"a": 1e-3, "b": "no", "c": "2024-01-01", "d": 16, "e": 10, "f": "1_000", "g": True, "h": "12:30"}
    assert documents.parse(documents.to_yaml(read), ".yaml") == read


@pytest.mark.parametrize(
    "table", [ENCODERS, ALIGNMENTS, LOSSES, KERNELS], ids=["encoders", "alignments", "losses", "kernels"]
)
def test_every_part_can_be_named_in_a_config(table: dict) -> None:
    needed = {
        "power": {"gamma": 1.5},
        "sum-of-losses": {"loss": "conditional", "alignments": ["laplace", "l2"], "temperatures": [1, 2.0]},
    }
    for name in table:
        part = {"name": name, **needed.get(name, {})}
        if table is ENCODERS:
            part |= {} if name in ("identity", "label", "lenet") else {"out_features": 3}
            config = config_from(with_value("model.encoder_u", part))
            assert config.model.encoder_u.name == name
            continue
        if table is ALIGNMENTS:
            config = config_from(with_value("model.alignment", part))
            assert type(config.model.alignment.build()) is table[name]
            continue
        wrapped = part if table is LOSSES else {"name": "mmd", "kernel_u": part}
        loss = config_from(with_value("loss", wrapped)).loss.build()
        assert type(loss if table is LOSSES else loss.kernel_u) is table[name]


WORDS = st.sampled_from(
    """
    data model loss training checkpoint seed output encoder_u encoder_v alignment temperature name u v path key
    variables sample_dim digits mnist arrays images two-moons mlp linear lenet convnet label identity hidden
    out_features in_features stages activation inner cosine power gamma potentials base sum-mixture f-gaussian
    conditional rince q lam 1/n f-micl divergence tsallis alpha sum-of-losses alignments temperatures weights mmd
    kernel_u gaussian bandwidth epochs batch_size lr optimizer lbfgs schedule warmup validation patience amp auto
    x.npy x.npz x.nc x.pt
    """.split()  # noqa: SIM905 - as a list it is a page long
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 50)
    | st.integers()
    | st.floats()
    | WORDS
    | st.text(max_size=8)
    | st.sampled_from([10**400, -(1 << 64), 1e308, "\ud800", "\0", b"x", "9" * 500])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5) | st.integers(), inner, max_size=6)
    ),
    max_leaves=25,
)
FULL = plain(config_from(documents.parse(vector_config(), ".yaml")))


@st.composite
def damaged(draw: st.DrawFn) -> object:
    """A full config with some values replaced, keys added and keys removed."""
    config = documents.parse(documents.to_yaml(FULL), ".yaml")
    for _ in range(draw(st.integers(1, 4))):
        place: object = config
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place, key=str)))
            if not isinstance(place[key], dict) or draw(st.booleans()):
                break
            place = place[key]
        if not isinstance(place, dict) or not place:
            continue
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                place[key] = draw(VALUES)
            case "remove":
                del place[key]
            case _:
                place[draw(WORDS)] = draw(VALUES)
    return config


def require_lines(problems: list[str]) -> None:
    assert problems
    assert all(problem and problem.isprintable() for problem in problems)


def survives(value: object) -> None:
    """Read a value as a config: it is refused, or it is one and can be written and read again."""
    try:
        config = config_from(value)
    except ConfigError as error:
        require_lines(error.problems)
        return
    assert isinstance(config, FitConfig)
    assert config_from(documents.parse(written(config), ".yaml")) == config


def survives_text(text: str, suffix: str) -> None:
    try:
        value = documents.parse(text, suffix)
    except ConfigError as error:
        require_lines(error.problems)
        return
    survives(value)


SUFFIXES = st.sampled_from([".yaml", ".toml", ".json"])
# Characters of which documents are made, often enough to get somewhere.
TEXTS = st.text(max_size=80) | st.text(alphabet="{}[]:,-&*!|>%@`\"'#?= \n\tax1.e0_~\0", max_size=80)
# In all a few thousand; and ten thousand in each of ten parts, each from a seed of its own.
FEW = {"damaged": 100, "values": 1000, "texts": 2500}
MANY = {"damaged": 1000, "values": 3000, "texts": 6000}
PARTS = 10


@given(damaged())
@settings(max_examples=FEW["damaged"])
def test_a_damaged_config_is_refused_in_words(value: object) -> None:
    survives(value)


@given(VALUES)
@settings(max_examples=FEW["values"])
def test_any_values_are_refused_in_words(value: object) -> None:
    survives(value)


@given(TEXTS, SUFFIXES)
@settings(max_examples=FEW["texts"])
def test_any_text_is_refused_in_words(text: str, suffix: str) -> None:
    survives_text(text, suffix)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("what", MANY)
def test_a_hundred_thousand_configs_are_refused_in_words(what: str, part: int) -> None:
    strategy = {"damaged": damaged(), "values": VALUES, "texts": st.tuples(TEXTS, SUFFIXES)}[what]

    @given(strategy)
    @seed(part)
    @settings(max_examples=MANY[what])
    def check(case: Any) -> None:
        survives_text(*case) if what == "texts" else survives(case)

    check()
