import re

import pytest
from torch import nn

import probcl as pcl
from probcl import citations as room
from probcl.citations import Citation, citations
from probcl.samplers import NUTS, TemperedSMC

ENTRIES = [value for value in vars(room).values() if isinstance(value, Citation)]
PAPERS = [entry for entry in ENTRIES if entry.entry != "software"]
NAMES = "Gaussian|Hamiltonian|Markov|Monte Carlo|Pareto|Pyro"


def model(alignment: pcl.Alignment | None = None) -> pcl.BimodalModel:
    return pcl.BimodalModel(nn.Identity(), nn.Identity(), alignment)


def eprints(*arguments: object) -> set[str]:
    return {dict(paper.fields).get("eprint", paper.key) for paper in citations(*arguments)} - {"probcl"}


@pytest.mark.parametrize(
    ("alignment", "loss", "expected"),
    [
        (pcl.InnerProduct(), pcl.JointLoss(), set()),
        (pcl.Cosine(), pcl.JointLoss(), {"2103.00020"}),
        (pcl.FGaussian(), pcl.FMICLLoss("pearson"), {"2402.10150"}),
        (pcl.InnerProduct(), pcl.RINCELoss(), {"2201.04309"}),
        (pcl.Laplace(), pcl.JointLoss(), {"2303.15103"}),
        (pcl.WithPotentials(pcl.Power(0.5)), pcl.JointLoss(), {"2303.15103"}),
        (pcl.InnerProduct(), pcl.SigmoidLoss(), {"2303.15343"}),
        (pcl.InnerProduct(), pcl.SpectralLoss(), {"2106.04156"}),
        (pcl.L2(), pcl.SumOfLosses(pcl.RINCELoss(), [pcl.Laplace()], [1.0]), {"2303.15103", "2201.04309"}),
    ],
)
def test_every_part_has_its_paper_and_the_general_one_comes_first(
    alignment: pcl.Alignment, loss: pcl.Loss, expected: set[str]
) -> None:
    assert eprints(model(alignment), loss) == {"2505.24134"} | expected
    assert citations(model(alignment), loss)[0].key == "baptista2025mathematical"


def test_linear_encoders_under_the_conditional_loss_are_those_of_the_mixtures() -> None:
    linear = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    assert "2411.03517" in eprints(linear, pcl.ConditionalLoss())
    assert "2411.03517" not in eprints(linear, pcl.JointLoss())
    assert "2411.03517" not in eprints(model(), pcl.ConditionalLoss())


def test_samplers_have_papers_too() -> None:
    assert "hoffman2014nouturn" in eprints(model(), None, NUTS())
    assert "delmoral2006sequential" in eprints(model(), None, TemperedSMC())


def test_a_paper_is_named_once_with_all_its_reasons() -> None:
    found = citations(model(pcl.FGaussian()), pcl.FMICLLoss())
    assert [paper.reason for paper in found] == ["probcl", "FGaussian, FMICLLoss", "the software"]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.key)
def test_an_entry_is_well_formed(paper: Citation) -> None:
    text = paper.bibtex
    assert text.count("{") == text.count("}")
    fields = dict(paper.fields)
    assert {"author", "title", "year"} <= fields.keys()
    surname = fields["author"].split(",")[0].lower().split()
    assert paper.key.startswith((surname[-1], "".join(surname)))
    assert fields["year"] in paper.key
    if "eprint" in fields:
        assert re.fullmatch(r"\d{4}\.\d{5}", fields["eprint"])
        assert 0 <= int(fields["year"]) - 2000 - int(fields["eprint"][:2]) <= 1 or paper.key.startswith("lu2023")
    required = {"article": "journal", "inproceedings": "booktitle", "misc": "eprint"}
    assert required[paper.entry] in fields


def test_keys_are_unique() -> None:
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_names_and_acronyms_in_a_title_keep_their_capitals(entry: Citation) -> None:
    open_to_lowering = re.sub(r"\{[^{}]*\}", "", dict(entry.fields)["title"])
    assert not re.findall(rf"{NAMES}|\b\w*[A-Za-z][A-Z]\w*", open_to_lowering)


def test_the_package_itself_comes_last_with_its_version() -> None:
    entry = citations(model())[-1]
    assert entry.bibtex.startswith("% the software\n@software{probcl,\n")
    assert f"  version = {{{pcl.__version__}}},\n" in entry.bibtex


def test_what_is_no_model_is_refused(unchecked: None) -> None:
    with pytest.raises(TypeError, match="model must be a BimodalModel"):
        citations(nn.Identity())  # type: ignore[arg-type]
