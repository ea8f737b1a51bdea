"""The public conformance checks over every registered strategy, here and from a user's own file."""

import numpy as np
import pytest

from gradsurgery.contract.registry import registered
from gradsurgery.testing.cases import cases_of
from gradsurgery.testing.checks import checks_of, common_samples
from tests.support.shipped import SHIPPED


def halves():
    """The checks of every strategy, those of its defaults on each half of the draws."""
    for name in SHIPPED:
        parts = {}  # of the defaults
        for bound, check, label in cases_of(name):
            if " [" in label or label.startswith("unclaimed") or label == "conditions":
                yield pytest.param(bound, check, id=f"{name}-{label}")
                continue
            for start, half in enumerate(("even", "odd")):
                if half not in parts:
                    parts[half] = {c.name: c for c in checks_of(bound, 2, start)}
                yield pytest.param(bound, parts[half][check.name], id=f"{name}-{label}-{half}")


# here a strategy's defaults on half of the draws, not its variants
@pytest.mark.sampled(keep=lambda name: " [" not in name and "-odd]" not in name)
@pytest.mark.parametrize(("strategy", "check"), list(halves()))
def test_conformance(strategy, check):
    check(strategy)


def test_each_half_of_the_draws_has_each_kind_and_size():
    from gradsurgery.testing import KINDS

    drawn = common_samples()
    assert len(drawn) == 600
    for half in (drawn[::2], drawn[1::2]):
        kinds = [sample.kind for sample in half]
        assert min(kinds.count(kind) for kind in KINDS) >= 3
        assert {s.count for s in half} >= set(range(1, 21)) | {25, 33}


@pytest.mark.parametrize("name", SHIPPED)
def test_claims_speak_of_something(name):
    assert registered(name).claims


def test_samples_cover_sizes_spreads_and_scales_independently():
    from gradsurgery.testing import KINDS, samples

    drawn = samples(600)
    ratios = {kind: set() for kind in KINDS}
    for sample in drawn:
        live = sample.norms[sample.norms > 0]
        if len(live) > 3:
            ratios[sample.kind].add(round(np.log10(live.max() / live.min())))
    assert all(max(seen) >= 4 and min(seen) == 0 for seen in ratios.values())
    for odd in (0, 1):
        sizes = [max(s.norms) for s in drawn if s.count % 2 == odd]
        assert min(sizes) < 1e-15
        assert max(sizes) > 1e18
        assert sum(1 <= size < 1e7 for size in sizes) > 60
    again = samples(600)
    assert all(
        np.array_equal(a.jacobian, b.jacobian) and a.draw == b.draw
        for a, b in zip(drawn, again, strict=True)
    )


def test_a_sample_of_a_jacobian_is_that_jacobian():
    from gradsurgery.testing import Sample, samples

    for sample in samples(100):
        made = Sample.of(sample.jacobian)
        assert np.array_equal(made.jacobian, sample.jacobian)
        assert np.array_equal(Sample.of(made.jacobian).units, made.units)


USERS_FILE = """
import numpy as np
import gradsurgery as gs
from gradsurgery.testing import parametrize_with_checks

@gs.strategy("shortest", paper="mine", scale="convex", claims=("deterministic", {claim}))
def shortest(gram):
    return np.eye(len(gram))[np.diag(gram).argmin()]

@parametrize_with_checks([shortest])
def test_conformance(strategy, check):
    check(strategy)
"""


@pytest.mark.parametrize(
    ("claim", "code", "counts"),
    [("'sums-to-one'", 0, {"passed": 3}), ("'strict'", 1, {"passed": 2, "failed": 1})],
)
def test_from_outside(tmp_path, fresh, claim, code, counts):
    """A user's own file, in a folder and a process of its own."""
    import re

    (tmp_path / "test_mine.py").write_text(USERS_FILE.format(claim=claim))
    asked = ["-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = fresh("import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))", *asked, cwd=tmp_path)
    assert done.returncode == code, done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed)", last)} == counts
    if code:
        assert "claims 'strict'" in done.stdout
        assert "Smallest failing Jacobian" in done.stdout
