"""Names as papers and other libraries write them lead to the right strategy, to no wrong one."""

import re

import pytest

import gradsurgery as gs
from gradsurgery.contract import About, Citation, citation
from gradsurgery.contract.about import FAMILIES
from gradsurgery.contract.registry import registered
from tests.support.shipped import SHIPPED

pytestmark = pytest.mark.quick

MEANT = {
    # as papers write them
    "PCGrad": "pcgrad", "CAGrad": "cagrad", "MGDA": "mgda", "GradNorm": "gradnorm",
    "Nash-MTL": "nash-mtl", "IMTL-G": "imtl-g", "IMTL-L": "imtl-l", "Aligned-MTL": "aligned-mtl",
    "FairGrad": "fairgrad", "FAMO": "famo", "ConFIG": "config", "MMPareto": "mmpareto",
    "OGM-GE": "ogm-ge", "SDMGrad": "sdmgrad", "CR-MOGM": "cr-mogm", "GradVac": "gradvac",
    "GradDrop": "graddrop", "ReLoBRaLo": "relobralo", "SoftAdapt": "softadapt",
    "MetaBalance": "metabalance", "Bloop": "bloop", "NGDiff": "unit-sum",
    "VQGAN": "adaptive-weight",
    "group DRO": "group-dro", "AND-mask": "and-mask", "uncertainty": "uw", "Kendall": "uw",
    "homoscedastic": "uw", "linear scalarization": "sum", "Gradient Surgery": "pcgrad",
    "Gradient Vaccine": "gradvac", "smooth Tchebycheff": "stch", "MOEA/D": "pbi",
    # LibMTL's classes
    "EW": "sum", "RLW": "random", "UW": "uw", "DWA": "dwa", "GLS": "gls", "MoCo": "moco",
    "Nash_MTL": "nash-mtl", "Aligned_MTL": "aligned-mtl", "DB_MTL": "db-mtl", "STCH": "stch",
    "ExcessMTL": "excess-mtl", "MoDo": "modo",
    # TorchJD's classes
    "UPGrad": "upgrad", "UPGradWeighting": "upgrad", "AlignedMTL": "aligned-mtl",
    "DualProj": "dualproj", "IMTLG": "imtl-g", "NashMTL": "nash-mtl", "TrimmedMean": "trimmed-mean",
    "Krum": "krum", "Constant": "constant", "Sum": "sum", "Mean": "mean", "Random": "random",
    "CRMOGMWeighting": "cr-mogm", "GeometricMean": "gls", "COSMOS": "cosmos", "PBI": "pbi",
    # keys of METHODS in nash-mtl and what follows it
    "ls": "sum", "rlw": "random", "uw": "uw", "dwa": "dwa", "nashmtl": "nash-mtl", "famo": "famo",
    # other libraries'
    "PCGradOperator": "pcgrad", "GradNormLossWeighter": "gradnorm", "GroupDRO": "group-dro",
    "SANDMask": "sand-mask", "ANDMask": "and-mask", "A_GEM": "a-gem", "ConFIGOperator": "config",
    # slips
    "mdga": "mgda", "cagrd": "cagrad", "pcgard": "pcgrad", "alligned-mtl": "aligned-mtl",
    "trimed_mean": "trimmed-mean", "uncertanty": "uw", "nash": "nash-mtl",
    # as users write them
    "equal weights": "sum", "baseline": "sum", "dynamic weight averaging": "dwa", "GeoMean": "gls",
    "lra": "lr-annealing", " UPGradWeighting\n": "upgrad", " Equal Weights ": "sum",
}  # fmt: skip

# near, and not the same: the hint, and what the sentence ends with
NEAR = {
    "GEM": ("dualproj", "the gradient of one task"),
    "mgda-ub": ("mgda", "features=z"),
    "MGDA_UB": ("mgda", "features=z"),
    "PSMGD": ("mgda", "every=k"),
    "FedMGDA+": ("mgda", "normalize='l2' and radius="),
    "log_mgda": ("mgda", "normalize='loss'"),
    "log_cagrad": ("cagrad", "logarithms of the losses"),
    "MultiBalance": ("mgda", "features=z"),
    "SI": ("gls", "sum of the log losses"),
    "scale-invariant": ("gls", "sum of the log losses"),
    "Frank-Wolfe": ("mgda", "the same min-norm point"),
    "NTK": ("lr-annealing", "not in this library"),
    "scaleinvls": ("gls", "sum of the log losses"),
    "IMTL": ("imtl-g", "imtl-l"),
    "imtl": ("imtl-g", "nash-mtl's is imtl-g"),
    "PIVRG": ("fairgrad", "preference="),
    "NTKMTL": ("unit-sum", "scale='total'"),
    "DCGD": ("config", "Center"),
    "SafeGrad": ("a-gem", "alignment gradient"),
    "GRU": ("a-gem", "objective="),
    "OGM": ("ogm-ge", "noise=False"),
    "RACO": ("cagrad", "preference="),
    "PMGDA": ("epo", "not in this library"),
    "Multi-Krum": ("krum", "selected="),
}

# published methods, networks and words that no strategy of ours is
NO_STRATEGY = (
    "STL", "MTAN", "SAM", "Adam", "RotoGrad", "Auto-Lambda", "GO4Align", "ConsMTL", "SLGrad",
    "GradOPS", "GradCraft", "GradAlign", "MMCosine", "G-Blending", "PMR", "MLA", "LibMTL",
    "TorchJD", "median", "geometric-median", "Bulyan", "IRM", "VREx", "Fish", "EWC", "MAS",
    "focal loss", "DTP", "Recon", "IGB", "", "grad", "quokka",
)  # fmt: skip


def said(name):
    with pytest.raises(gs.UnknownNameError) as error:
        gs.get_strategy(name)
    return str(error.value)


def hint(text):
    found = re.search(r"Did you mean '([^']+)'\? Known: a-gem, ", text)
    return found and found[1]


@pytest.mark.parametrize(("given", "name"), MEANT.items())
def test_a_spelling_of_papers_and_peers_is_the_strategy_or_says_its_name(given, name):
    if given in gs.strategy_names():
        assert registered(given).name == name
    else:
        text = said(given)
        assert hint(text) == name
        assert text.startswith(f"unknown strategy {given!r}. ")
        assert text.endswith(", uw.")


@pytest.mark.parametrize("given", NEAR)
def test_a_method_that_is_near_is_a_hint_that_says_what_differs(given):
    name, differs = NEAR[given]
    text = said(given)
    assert hint(text) == name
    assert differs in text.partition(", uw.")[2]


@pytest.mark.parametrize("given", NO_STRATEGY)
def test_a_method_that_no_strategy_is_has_no_hint(given):
    text = said(given)
    assert "Did you mean" not in text
    assert text.endswith(", uw.")


def test_no_name_leads_to_two_strategies_or_hides_a_strategy():
    owners = {}
    for name in SHIPPED:
        strategy = registered(name)
        for other in (*strategy.also, *strategy.about.related):
            plain = re.sub(r"[-_\s]", "", other).casefold()
            assert owners.setdefault(plain, name) == name, other
            assert plain not in {re.sub("-", "", x) for x in SHIPPED} - {name.replace("-", "")}
        assert not set(strategy.also) & set(strategy.about.related)


def test_random_and_rlw_are_one_method():
    assert hint(said("rlw")) == "random"
    assert gs.get_strategy("random").about.papers[0].arxiv == "2111.10603"


def test_a_strategy_of_a_third_party_needs_none_of_it(temporary):
    gs.strategy("test-bare")(lambda gram: gram[0])
    bare = registered("test-bare")
    assert bare.about == About()
    assert citation("test-bare") is None
    about = About(related={"Wombat": "it digs."}, papers=(Citation("On digging"),))
    gs.strategy("test-cited", about=about)(lambda gram: gram[0])
    assert "Did you mean 'test-cited'?" in said("wombat")
    assert said("wombat").endswith(" Wombat: it digs.")
    assert citation("test-cited").bibtex("x") == "@misc{x,\n  title = {{On digging}},\n}"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_page_needs_is_there(name):
    strategy = registered(name)
    about = strategy.about
    assert about.family in FAMILIES
    for text in (about.use, about.avoid, *about.related.values(), *about.differs):
        assert text.endswith(".")
    assert about.maths
    numbers = re.findall(r"arXiv:(\d{4}\.\d{5})", strategy.paper)
    assert {p.arxiv for p in about.papers} >= set(numbers[:1])
    for paper in about.papers:
        assert paper.source, "where title, authors and year were read"
        assert not paper.arxiv or re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
        entry = paper.bibtex(name)
        assert entry.isascii()
        assert entry.count("{") == entry.count("}")
        assert entry.startswith(f"@{'article' if paper.journal else ''}") or not paper.journal


def test_accents_are_written_as_bibtex_reads_them():
    entry = Citation("Éa & ö", ("Valérian Rey", "Björn Ommer"), 2024).bibtex("key")
    assert r"{\'e}" in entry
    assert r"Bj{\"o}rn" in entry
    assert r"{\'E}a \& {\"o}" in entry
