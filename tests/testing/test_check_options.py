"""What the conformance checks have to see: options with few values, numbers, conditions."""

from typing import Annotated

import numpy as np
import pytest

import gradsurgery as gs
from gradsurgery.contract import Range
from gradsurgery.testing import ConformanceError, check_strategy
from gradsurgery.testing.cases import cases_of
from tests.support.conformance import checked, failure, right, wrong


def test_every_value_of_an_option_with_few_values_is_checked(register):
    from typing import Literal

    def chosen(gram, *, size: Literal["sum", "root"] = "sum", flip=False):
        weights = np.ones(len(gram)) / (np.sqrt(np.trace(gram)) or 1.0 if size == "root" else 1.0)
        return -weights if flip else weights

    register(chosen, claims=("deterministic", gs.homogeneous(1)))
    text = failure()
    assert "size='root', flip=False), check 'homogeneous'" in text
    assert "size='sum', flip=False), check" not in text
    register(chosen, name="known", claims=("deterministic",), variants=({"flip": True},))
    settings = ("", " [flip=True]", " [size='root']")
    assert [label for _, _, label in cases_of("known")] == [
        f"{check}{s}" for s in settings for check in ("contract", "deterministic")
    ]


def test_a_number_that_no_variant_names_is_halved(register):
    def mixed(gram, *, soft=0.0):
        return np.full(len(gram), soft)

    register(mixed, claims=("non-conflicting",))
    assert "soft=0.5), check 'non-conflicting'" in failure(only="non-conflicting [soft=0.5]")
    condition = gs.when("soft = 0", lambda options: options["soft"] == 0, "non-conflicting")
    register(mixed, name="said", claims=(condition,))
    assert [label for _, _, label in cases_of("said")] == [
        "contract",
        "non-conflicting",
        "contract [soft=0.5]",
    ]
    checked("said", "contract [soft=0.5]")

    def above(gram, *, c=1.0):
        if c < 1:
            raise gs.InputError("c is at least 1.")
        return np.ones(len(gram))

    register(above, name="above")
    assert set(check_strategy("above").values()) == {"passed"}


def test_a_value_whose_extra_is_not_installed_is_left_out(register):
    from typing import Literal

    def chosen(gram, *, solver: Literal["own", "theirs"] = "own"):
        if solver == "theirs":
            raise gs.MissingExtraError("this needs an extra.")
        return np.ones(len(gram))

    register(chosen)
    assert set(check_strategy("mine").values()) == {"passed"}


def whole(gram, *, c: float = 1):
    return (right if c == 1 else wrong)(gram)


def optional(gram, *, c: float | None = None):
    return (right if c is None else wrong)(gram)


def ranged(
    gram, *, c: Annotated[float, Range(0, 1)] | None = None, k: Annotated[float, Range(0.9)] = 1
):
    return (right if c is None else wrong)(gram)


@pytest.mark.parametrize("function", [whole, optional, ranged])
def test_numbers_are_varied_where_the_annotation_says_float(register, function):
    register(function, claims=("non-conflicting",))
    with pytest.raises(ConformanceError, match="c=0.5"):
        check_strategy("mine")


def test_whole_numbers_are_varied_by_variants_alone(register):
    def counted(gram, *, k: int = 4, j=2, f: float = 3, g: float | None = None):
        return right(gram)

    register(counted, claims=("non-conflicting",))
    labels = {label for _, _, label in cases_of("mine")}
    assert any("f=1.5" in label for label in labels)
    assert any("g=0.5" in label for label in labels)
    assert not any("k=" in label or "j=" in label for label in labels)
