"""The publication to cite for a strategy."""

from gradsurgery.contract.about import Citation
from gradsurgery.contract.registry import registered


def citation(name: str) -> Citation | None:
    """The publication to cite for this strategy; None where there is none.

    Those of all its publications are `registered(name).about.papers`.

    Raises:
        UnknownNameError: for an unknown name, with the nearest match and the list.

    Example:
        >>> from gradsurgery.contract import citation
        >>> print(citation("fairgrad").bibtex("ban2024fair"))
        @inproceedings{ban2024fair,
          title = {{Fair Resource Allocation in Multi-Task Learning}},
          author = {Hao Ban and Kaiyi Ji},
          booktitle = {ICML},
          year = {2024},
          eprint = {2402.15638},
          archivePrefix = {arXiv},
        }
        >>> citation("sum") is None
        True
    """
    papers = registered(name).about.papers
    return papers[0] if papers else None
