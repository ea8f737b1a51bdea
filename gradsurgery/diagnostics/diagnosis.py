"""Diagnosis: what frozen weights and N batches say of the gradients, group by group, in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gradsurgery.diagnostics.jackknife import Interval
from gradsurgery.diagnostics.verdicts import Holds, Verdict
from gradsurgery.types import Array


@dataclass(frozen=True)
class ObjectiveDiagnosis:
    """One objective's gradient in one group.

    Attributes:
        name: the objective.
        length: the root mean square of ‖g‖ over the batches: the length that a step sees.
        mean_length: ‖ḡ‖ of the mean gradient, without the part that noise adds to it.
        covariance: tr Cov g of the gradient of one batch.
        noise: the relative noise tr Cov g / ‖ḡ‖².
        control: the share of pairs of batches on which this one gradient has a negative cosine
            with itself: what a conflict rate has to be compared with.
    """

    name: str
    length: float
    mean_length: Interval
    covariance: Interval
    noise: Interval
    control: float


@dataclass(frozen=True)
class Assumption:
    """MMPareto's Assumption 1 for a unimodal objective and the joint one.

    Attributes:
        magnitude: whether the unimodal gradient is the longer one.
        covariance: whether its tr Cov is the larger one, as it is where all of it is longer.
        noise: whether its relative noise is the larger one.
        beside_initialisation: whether the lengths' ratio is within 15 % of √M or its interval
            reaches there: initialisation alone gives that where M modalities are concatenated.
            None without M.
    """

    magnitude: Holds
    covariance: Holds
    noise: Holds
    beside_initialisation: bool | None


@dataclass(frozen=True)
class PairDiagnosis:
    """Two objectives in one group; ratios are of the first over the second.

    Attributes:
        first: an objective; the unimodal one where the other is joint.
        second: another one.
        inner: ⟨ḡᵢ, ḡⱼ⟩ from pairs of different batches.
        cosine: of the mean gradients; its ends are NaN where noise hides a length.
        conflict: the share of batches on which the two have a negative cosine.
        control: the same share for two batches of each objective itself.
        length_ratio: of the lengths on a batch (root mean squares).
        mean_ratio: of the lengths of the mean gradients.
        covariance_ratio: of tr Cov.
        noise_ratio: of the relative noises tr Cov / ‖ḡ‖².
        verdict: "conflict beyond noise", "none" (no conflict), "only batch noise" (the means agree,
            batches conflict), "orthogonal", "no gradient" or "undecided".
        advice: what to try.
        assumption: Assumption 1 of MMPareto where one objective is the joint one, else None.
    """

    first: str
    second: str
    inner: Interval
    cosine: Interval
    conflict: float
    control: tuple[float, float]
    length_ratio: Interval
    mean_ratio: Interval
    covariance_ratio: Interval
    noise_ratio: Interval
    verdict: Verdict
    advice: str
    assumption: Assumption | None = None


@dataclass(frozen=True)
class GroupDiagnosis:
    """One parameter group.

    Attributes:
        name: the group's name, as in a Record.
        objectives: the n objectives that reach it.
        parameters: how many parameter tensors it has.
        inner: ⟨ḡᵢ, ḡⱼ⟩ [n, n] of the mean gradients, unbiased.
        each: objective -> ObjectiveDiagnosis.
        pairs: every pair of objectives.
    """

    name: str
    objectives: tuple[str, ...]
    parameters: int
    inner: Array
    each: dict[str, ObjectiveDiagnosis]
    pairs: tuple[PairDiagnosis, ...]

    def pair(self, one: str, other: str) -> PairDiagnosis:
        """The pair of two objectives, in either order.

        Raises:
            KeyError: for names that are no pair here.
        """
        for found in self.pairs:
            if {found.first, found.second} == {one, other}:
                return found
        raise KeyError(f"no pair {one!r}, {other!r}; the objectives are {self.objectives}")


@dataclass(frozen=True)
class Diagnosis(Mapping[str, GroupDiagnosis]):
    """What `diagnose` found: group name -> GroupDiagnosis; `print` says it in words.

    Attributes:
        groups: name -> GroupDiagnosis, for groups that two or more objectives reach.
        losses: name -> mean loss over the batches.
        batches: N.
        level: of the intervals, of all pairs together.
        joint: the joint objective, or None where there is none.
        modalities: M, or None without a joint objective.
        warnings: what makes these weights a bad place to judge from.
    """

    groups: dict[str, GroupDiagnosis]
    losses: dict[str, float]
    batches: int
    level: float
    joint: str | None = None
    modalities: int | None = None
    warnings: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> GroupDiagnosis:
        try:
            return self.groups[name]
        except KeyError:
            raise KeyError(
                f"no group {name!r}; the groups are {', '.join(map(repr, self.groups))}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def pairs(self) -> list[tuple[str, PairDiagnosis]]:
        """(group name, pair) for every pair of every group."""
        return [(name, pair) for name, group in self.groups.items() for pair in group.pairs]

    def __str__(self) -> str:
        lines = [f"{self.batches} batches at frozen weights, {100 * self.level:g} % intervals"]
        for name, group in self.groups.items():
            lines.append(f"{name} ({group.parameters} tensors)")
            for one in group.each.values():
                lines.append(
                    f"  {one.name}: length {one.length:.3g}, relative noise {one.noise}, "
                    f"two batches of it conflict in {one.control:.0%}"
                )
            for pair in group.pairs:
                lines += [f"  {line}" for line in self._of(pair)]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def _of(self, pair: PairDiagnosis) -> Iterator[str]:
        what = "no conflict" if pair.verdict == "none" else pair.verdict
        yield f"{pair.first} and {pair.second}: {what}"
        yield (
            f"  cosine of the mean gradients {pair.cosine}, "
            f"conflict in {pair.conflict:.0%} of batches"
        )
        beside = "" if self.modalities is None else f" (√M = {self.modalities**0.5:.2f})"
        yield (
            f"  {pair.first} over {pair.second}: length {pair.length_ratio}{beside}, "
            f"tr Cov {pair.covariance_ratio}, relative noise {pair.noise_ratio}"
        )
        if pair.assumption is not None:
            known = pair.assumption
            as_made = ", within what initialisation gives" if known.beside_initialisation else ""
            yield (
                f"  Assumption 1: magnitude {known.magnitude}{as_made}; "
                f"covariance {known.covariance}; relative noise {known.noise}"
            )
        yield f"  try: {pair.advice}"
