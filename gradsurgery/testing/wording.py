"""What is said of a function that was checked, for readers who do not know the claims."""

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 80
CONTRACT = "contract"
MEANING = {
    CONTRACT: (
        "Finite numbers of the right shape on every draw, the same for the same input; the input "
        "is left as it was."
    ),
    "non-conflicting": "A small step along −d raises no loss: ⟨gᵢ, d⟩ >= 0 for every i.",
    "strict": "Where some direction improves every loss, d does: ⟨gᵢ, d⟩ > 0 for every i.",
    "homogeneous": "Gradients that are s times longer give a direction that is sᵏ times longer.",
    "scale-invariant": "A gradient that is longer or shorter leaves d's direction as it is.",
    "permutation-equivariant": "The order of the objectives does not matter.",
    "deterministic": "The same gradients give the same d, whatever the random numbers.",
    "sums-to-one": "The weights sum to one, away from stationary points.",
    "projection": (
        "d is non-conflicting, no longer than the mean gradient, and the mean gradient itself "
        "where that is non-conflicting."
    ),
}
LEGEND = (
    "Row i of J is gᵢ, the gradient of objective i (the first is 0), and nᵢ its length. G = JJᵀ. "
    "d is the direction that an optimizer subtracts, d = Jᵀw for weights w, so that (Jd)ᵢ = "
    "⟨gᵢ, d⟩ < 0 means that a small step raises loss i."
)


def paragraph(text: str, indent: str = "") -> str:
    """A paragraph in lines of at most 80 columns."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def sentence(text: str) -> str:
    """With a capital, unless a symbol comes first, and one full stop."""
    first = text.partition(" ")[0]
    return (text[:1].upper() + text[1:] if first.isalpha() and len(first) > 1 else text).rstrip(
        "."
    ) + "."


def meaning(name: str) -> str:
    """What a claim says, in words; conditions and degrees do not count."""
    return MEANING[name.partition(" when ")[0].partition("(")[0]]


def counted(judged: int, violated: int, up_to: int, claimed: bool, what: str) -> str:
    """How often a property held, in a few words."""
    if not judged:
        return "no draw can tell"
    if not violated:
        return f"holds on {judged} {what if judged > 1 else what.replace('draws', 'draw', 1)}"
    held = f", none with n <= {up_to}" if up_to > 1 else ""
    return f"{'VIOLATED' if claimed else 'fails'} on {violated} of {judged} {what}{held}"


def row(name: str, text: str) -> str:
    """A line of the table; what is too long goes on below."""
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<25} ", subsequent_indent=" " * 30)


def numbers(name: str, values: Any) -> str:
    """A vector under its name, or nothing where there is none."""
    if values is None:
        return ""
    return f"    {name} = [{', '.join(f'{x:.6g}' for x in values.tolist())}]"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
