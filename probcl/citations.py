"""The papers behind what was used, and the package itself, as BibTeX."""

from dataclasses import dataclass, replace

from torch import nn

from probcl import __version__
from probcl.alignment import Alignment, Cosine
from probcl.distance import ConcatMixture, FGaussian, Laplace, Power, SumMixture
from probcl.encoders import LeNet, ResidualConvNet
from probcl.losses import (
    ConditionalLoss,
    ConditionalMMDLoss,
    FMICLLoss,
    JointMMDLoss,
    Loss,
    RINCELoss,
    SigmoidLoss,
    SpectralLoss,
    SumOfLosses,
)
from probcl.model import BimodalModel, require_model
from probcl.samplers import HMC, NUTS, AmortizedFlow, AutoSampler, ImportanceResampling, Sampler, TemperedSMC


@dataclass(frozen=True)
class Citation:
    """A paper or a program, and what it is cited for.

    Attributes
    ----------
    key
        The citation key.
    entry
        The BibTeX type, "article", "inproceedings", "misc" or "software".
    fields
        Field names and values, in order.
    reason
        What of a model it is behind.
    """

    key: str
    entry: str
    fields: tuple[tuple[str, str], ...]
    reason: str = ""

    @property
    def bibtex(self) -> str:
        """The BibTeX entry, with the reason as a comment above it."""
        comment = f"% {self.reason}\n" if self.reason else ""
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in self.fields)
        return f"{comment}@{self.entry}{{{self.key},\n{lines}}}"


def _paper(key: str, entry: str, **fields: str) -> Citation:
    return Citation(key, entry, tuple(fields.items()))


def _preprint(key: str, number: str, category: str, **fields: str) -> Citation:
    return _paper(key, "misc", **fields, eprint=number, archiveprefix="arXiv", primaryclass=category)


PROBABILISTIC = _preprint(
    "baptista2025mathematical",
    "2505.24134",
    "stat.ML",
    author="Baptista, Ricardo and Stuart, Andrew M. and Tran, Son",
    title="A Mathematical Perspective On Contrastive Learning",
    year="2025",
)
INFO_NCE = _preprint(
    "oord2018representation",
    "1807.03748",
    "cs.LG",
    author="van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol",
    title="Representation Learning with Contrastive Predictive Coding",
    year="2018",
)
CLIP = _paper(
    "radford2021learning",
    "inproceedings",
    author="Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and "
    "Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and "
    "Krueger, Gretchen and Sutskever, Ilya",
    title="Learning Transferable Visual Models From Natural Language Supervision",
    booktitle="International Conference on Machine Learning",
    year="2021",
    eprint="2103.00020",
    archiveprefix="arXiv",
)
F_MICL = _paper(
    "lu2023fmicl",
    "article",
    author="Lu, Yiwei and Zhang, Guojun and Sun, Sun and Guo, Hongyu and Yu, Yaoliang",
    title="{$f$-MICL}: Understanding and Generalizing {InfoNCE}-based Contrastive Learning",
    journal="Transactions on Machine Learning Research",
    year="2023",
    eprint="2402.10150",
    archiveprefix="arXiv",
)
RINCE = _paper(
    "chuang2022robust",
    "inproceedings",
    author="Chuang, Ching-Yao and Hjelm, R Devon and Wang, Xin and Vineet, Vibhav and Joshi, Neel and "
    "Torralba, Antonio and Jegelka, Stefanie and Song, Yale",
    title="Robust Contrastive Learning against Noisy Views",
    booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year="2022",
    eprint="2201.04309",
    archiveprefix="arXiv",
)
KERNEL_INFO_NCE = _paper(
    "tan2024contrastive",
    "inproceedings",
    author="Tan, Zhiquan and Zhang, Yifan and Yang, Jingqin and Yuan, Yang",
    title="Contrastive Learning Is Spectral Clustering On Similarity Graph",
    booktitle="International Conference on Learning Representations",
    year="2024",
    eprint="2303.15103",
    archiveprefix="arXiv",
)
GAUSSIAN_MIXTURES = _preprint(
    "bansal2024understanding",
    "2411.03517",
    "cs.LG",
    author="Bansal, Parikshit and Kavis, Ali and Sanghavi, Sujay",
    title="Understanding Contrastive Learning via {Gaussian} Mixture Models",
    year="2024",
)
SIGLIP = _paper(
    "zhai2023sigmoid",
    "inproceedings",
    author="Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas",
    title="Sigmoid Loss for Language Image Pre-Training",
    booktitle="IEEE/CVF International Conference on Computer Vision",
    year="2023",
    eprint="2303.15343",
    archiveprefix="arXiv",
)
SPECTRAL = _paper(
    "haochen2021provable",
    "inproceedings",
    author="HaoChen, Jeff Z. and Wei, Colin and Gaidon, Adrien and Ma, Tengyu",
    title="Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss",
    booktitle="Advances in Neural Information Processing Systems",
    year="2021",
    eprint="2106.04156",
    archiveprefix="arXiv",
)
MMD = _paper(
    "gretton2012kernel",
    "article",
    author=r"Gretton, Arthur and Borgwardt, Karsten M. and Rasch, Malte J. and Sch{\"o}lkopf, Bernhard and "
    "Smola, Alexander",
    title="A Kernel Two-Sample Test",
    journal="Journal of Machine Learning Research",
    volume="13",
    pages="723--773",
    year="2012",
)
LENET = _paper(
    "lecun1998gradient",
    "article",
    author=r"LeCun, Yann and Bottou, L{\'e}on and Bengio, Yoshua and Haffner, Patrick",
    title="Gradient-Based Learning Applied to Document Recognition",
    journal="Proceedings of the IEEE",
    volume="86",
    number="11",
    pages="2278--2324",
    year="1998",
)
RESIDUAL = _paper(
    "he2016identity",
    "inproceedings",
    author="He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    title="Identity Mappings in Deep Residual Networks",
    booktitle="European Conference on Computer Vision",
    year="2016",
    eprint="1603.05027",
    archiveprefix="arXiv",
)
PARETO_SMOOTHING = _paper(
    "vehtari2024pareto",
    "article",
    author="Vehtari, Aki and Simpson, Daniel and Gelman, Andrew and Yao, Yuling and Gabry, Jonah",
    title="{Pareto} Smoothed Importance Sampling",
    journal="Journal of Machine Learning Research",
    volume="25",
    number="72",
    year="2024",
)
SEQUENTIAL_MONTE_CARLO = _paper(
    "delmoral2006sequential",
    "article",
    author="Del Moral, Pierre and Doucet, Arnaud and Jasra, Ajay",
    title="Sequential {Monte Carlo} Samplers",
    journal="Journal of the Royal Statistical Society: Series B",
    volume="68",
    number="3",
    pages="411--436",
    year="2006",
)
CRANK_NICOLSON = _paper(
    "cotter2013mcmc",
    "article",
    author="Cotter, S. L. and Roberts, G. O. and Stuart, A. M. and White, D.",
    title="{MCMC} Methods for Functions: Modifying Old Algorithms to Make Them Faster",
    journal="Statistical Science",
    volume="28",
    number="3",
    pages="424--446",
    year="2013",
)
HAMILTONIAN = _paper(
    "duane1987hybrid",
    "article",
    author="Duane, Simon and Kennedy, A. D. and Pendleton, Brian J. and Roweth, Duncan",
    title="Hybrid {Monte Carlo}",
    journal="Physics Letters B",
    volume="195",
    number="2",
    pages="216--222",
    year="1987",
)
NO_U_TURN = _paper(
    "hoffman2014nouturn",
    "article",
    author="Hoffman, Matthew D. and Gelman, Andrew",
    title="The No-{U}-Turn Sampler: Adaptively Setting Path Lengths in {Hamiltonian Monte Carlo}",
    journal="Journal of Machine Learning Research",
    volume="15",
    pages="1593--1623",
    year="2014",
)
PYRO = _paper(
    "bingham2019pyro",
    "article",
    author="Bingham, Eli and Chen, Jonathan P. and Jankowiak, Martin and Obermeyer, Fritz and Pradhan, Neeraj and "
    "Karaletsos, Theofanis and Singh, Rohit and Szerlip, Paul and Horsfall, Paul and Goodman, Noah D.",
    title="{Pyro}: Deep Universal Probabilistic Programming",
    journal="Journal of Machine Learning Research",
    volume="20",
    number="28",
    pages="1--6",
    year="2019",
)
AUTOREGRESSIVE_FLOW = _paper(
    "papamakarios2017masked",
    "inproceedings",
    author="Papamakarios, George and Pavlakou, Theo and Murray, Iain",
    title="Masked Autoregressive Flow for Density Estimation",
    booktitle="Advances in Neural Information Processing Systems",
    year="2017",
    eprint="1705.07057",
    archiveprefix="arXiv",
)

PACKAGE = _paper(
    "probcl",
    "software",
    author="{The probcl developers}",
    title="{probcl}: Probabilistic Bimodal Contrastive Learning",
    version=__version__,
    license="Apache-2.0",
)

_BEHIND: dict[type, tuple[Citation, ...]] = {
    Cosine: (CLIP,),
    Laplace: (KERNEL_INFO_NCE,),
    Power: (KERNEL_INFO_NCE,),
    SumMixture: (KERNEL_INFO_NCE,),
    ConcatMixture: (KERNEL_INFO_NCE,),
    FGaussian: (F_MICL,),
    ConditionalLoss: (INFO_NCE,),
    FMICLLoss: (F_MICL,),
    RINCELoss: (RINCE,),
    SigmoidLoss: (SIGLIP,),
    SpectralLoss: (SPECTRAL,),
    ConditionalMMDLoss: (MMD,),
    JointMMDLoss: (MMD,),
    SumOfLosses: (KERNEL_INFO_NCE,),
    LeNet: (LENET,),
    ResidualConvNet: (RESIDUAL,),
    ImportanceResampling: (PARETO_SMOOTHING,),
    TemperedSMC: (SEQUENTIAL_MONTE_CARLO, CRANK_NICOLSON),
    AutoSampler: (PARETO_SMOOTHING, SEQUENTIAL_MONTE_CARLO, CRANK_NICOLSON),
    HMC: (HAMILTONIAN, PYRO),
    NUTS: (NO_U_TURN, PYRO),
    AmortizedFlow: (AUTOREGRESSIVE_FLOW,),
}


def citations(model: BimodalModel, loss: Loss | None = None, sampler: Sampler | None = None) -> list[Citation]:
    """Return the papers behind the parts of a model, of its loss and of its sampler, the general one first, and probcl.

    Parameters
    ----------
    model
        Its encoders and its alignment are looked at.
    loss
        What it was fitted with, which the model itself does not remember.
    sampler
        What its conditionals are drawn with.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.citations import citations
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), pcl.Laplace())
    >>> [citation.key for citation in citations(model, pcl.JointLoss())]
    ['baptista2025mathematical', 'tan2024contrastive', 'probcl']
    """
    require_model(model)
    parts: list[object] = [*model.modules()]
    parts += [] if loss is None else [part for part in loss.modules() if isinstance(part, Loss | Alignment)]
    parts += [] if sampler is None else [sampler]
    reasons: dict[Citation, list[str]] = {PROBABILISTIC: ["probcl"]}
    for part in parts:
        for paper in _BEHIND.get(type(part), ()):
            _add(reasons, paper, type(part).__name__)
    linear = isinstance(model.encoder_u, nn.Linear) and isinstance(model.encoder_v, nn.Linear)
    if isinstance(loss, ConditionalLoss) and linear:
        _add(reasons, GAUSSIAN_MIXTURES, "ConditionalLoss with linear encoders")
    papers = [replace(paper, reason=", ".join(names)) for paper, names in reasons.items()]
    return [*papers, replace(PACKAGE, reason="the software")]


def _add(reasons: dict[Citation, list[str]], paper: Citation, reason: str) -> None:
    names = reasons.setdefault(paper, [])
    if reason not in names:
        names.append(reason)
