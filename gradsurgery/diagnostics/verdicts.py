"""What two objectives' gradients say, in words: the rules from figures to verdicts."""

from typing import Literal

from gradsurgery.diagnostics.jackknife import Interval

Verdict = Literal[
    "conflict beyond noise", "none", "only batch noise", "orthogonal", "no gradient", "undecided"
]
Holds = Literal["holds", "fails", "undecided"]
FARTHEST = 5.0  # 25 times as many batches: an estimate so near to a bound tells no number
OFTEN = 0.05  # a conflict rate from which batches are said to conflict
TRY = {
    "conflict beyond noise": (
        "a strategy that resolves conflicts can matter here (upgrad, pcgrad, cagrad, mgda): compare"
        " it with a tuned sum and scaled-sum"
    ),
    "none": "train on the sum of the losses: there is no conflict to resolve",
    "only batch noise": (
        "train on the sum: the mean gradients agree; a larger batch or a smaller learning rate "
        "takes out the conflicts of single batches"
    ),
    "orthogonal": (
        "the losses share no direction, and about half of the batches conflict by chance: weights "
        "of the losses or scaled-sum decide here, rather than resolving conflicts"
    ),
    "no gradient": "one objective has a gradient of zero here: train without it, or check its loss",
    "undecided": "more batches, or larger ones",
}


def verdict(inner: Interval, cosine: Interval, rate: float, margin: float) -> Verdict:
    """The verdict on the mean gradients of two objectives.

    Args:
        inner: ⟨ḡᵢ, ḡⱼ⟩.
        cosine: of the mean gradients; its ends are NaN where a norm is not known.
        rate: the share of batches on which the two conflict.
        margin: cosines that are smaller in size count as orthogonal. This comes first: with enough
            batches any small cosine is beyond noise. An estimate within it is no conflict.
    """
    if -margin < cosine.low and cosine.high < margin:
        return "orthogonal"
    small = abs(cosine.value) < margin  # False where the cosine is not known
    if inner.high < 0 and not small:
        return "conflict beyond noise"
    if rate <= OFTEN:  # there is nothing that surgery could change, whatever the means do
        return "none"
    if inner.low > 0:
        return "only batch noise"
    return "undecided"


def above(ratio: Interval, bound: float = 1.0) -> Holds:
    """Whether a ratio is above a bound, by its interval."""
    if ratio.low > bound:
        return "holds"
    return "fails" if ratio.high < bound else "undecided"


def batches_needed(cosine: Interval, margin: float, batches: int) -> int | None:
    """How many batches would decide, if the estimate stays; None where that is not known.

    The width of an interval falls as 1/√N; it has to leave out 0, or to fit within ±margin.
    """
    half = (cosine.high - cosine.low) / 2
    size = abs(cosine.value)
    gap = size if size >= margin else margin - size
    if not half > 0 or half > FARTHEST * gap:
        return None
    return int(batches * (half / gap) ** 2) + 1
