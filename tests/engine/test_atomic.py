"""A step that fails anywhere leaves everything as it was."""

import copy
import functools
import math
import pathlib
import sys
import warnings

import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads, same
from tests.support.shipped import plain

PACKAGE = str(pathlib.Path(gs.__file__).parent)


@pytest.fixture
def counting(temporary):
    """A stateful strategy whose weights depend on how many steps it has seen."""

    @gs.strategy("test-counting", paper="a test", scale="own")
    def counting(gram, objectives, state):
        seen = state.vector("seen", 0.0)
        seen += 1
        return 1.0 + seen

    return "test-counting"


class Fault(BaseException):
    """Raised from the outside at the k-th line."""


def interrupted(k, call):
    """Run `call` and raise `Fault` at the k-th line executed inside the package; how many lines
    were executed.
    """
    count, raised = 0, False

    def trace(frame, event, arg):
        nonlocal count, raised
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not raised:
            count += 1
            if count == k:
                raised = True
                raise Fault(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    sys.settrace(trace)
    try:
        call()
    except Fault:
        pass
    finally:
        sys.settrace(None)
    return count


def at_features(model):
    """The losses of a batch, and the features they were computed from."""
    a, v = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    a, v = model.frozen(model.audio(a)), model.visual(v)
    losses = {
        "fused": model.fusion(torch.cat([a, v], 1)).pow(2).mean(),
        "audio": model.audio_head(a).pow(2).mean(),
        "visual": model.visual_head(v).exp().mean(),
    }
    return losses, {"a": a, "v": v}


def plainly(model, surgery, seed):
    losses = model.losses(seed)
    return lambda: surgery.backward(losses)


def scaled(model, surgery, seed):
    losses, scaler = model.losses(seed), torch.amp.GradScaler("cpu", init_scale=8.0)
    return lambda: surgery.backward(losses, scaler=scaler)


def overflowing(model, surgery, seed):
    losses, scaler = model.losses(seed), torch.amp.GradScaler("cpu", init_scale=8.0)
    losses["audio"] = losses["audio"] * math.inf
    return lambda: surgery.backward(losses, scaler=scaler)


def cut(model, surgery, seed):
    torch.manual_seed(seed)
    losses, features = at_features(model)
    return lambda: surgery.backward(losses, features=features)


@functools.cache
def compiled_losses():
    """A model, and it and its losses in one compiled region."""
    model = TwoEncoders()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)

    def losses():
        a, v = model.audio(x), model.visual(y)
        return (
            model.fusion(torch.cat([a, v], 1)).exp().mean(),
            model.audio_head(a).pow(2).mean(),
            model.visual_head(v).exp().mean(),
        )

    return model, torch.compile(losses, backend="aot_eager", fullgraph=True)


def in_compiled_region(model, surgery, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = dict(zip(("fused", "audio", "visual"), compiled_losses()[1](), strict=True))
    return lambda: surgery.backward(losses)


def accumulating(model, surgery, seed):
    losses = model.losses(seed)
    return lambda: surgery.accumulate(losses)


def combining(model, surgery, seed):
    if gathered(model, surgery) is None:
        for part in (seed, seed + 10):
            surgery.accumulate(model.losses(part))
    return surgery.combine


# mode -> (strategies, options of Surgery, what comes before, the call)
MODES = {
    "plain": (
        ["mgda", "test-counting", "scaled-sum", "random", "famo", "moco"],
        {},
        plainly,
        plainly,
    ),
    "scaler": (["mgda", "uw", "moco"], {}, scaled, scaled),
    "overflow": (["mgda", "uw"], {}, scaled, overflowing),
    "features": (["mgda", "famo"], {}, cut, cut),
    "every, solved": (["mgda", "uw"], {"every": 2}, None, plainly),
    "every, replayed": (["mgda", "uw", "test-counting"], {"every": 2}, plainly, plainly),
    "accumulate": (["mgda", "test-counting"], {}, accumulating, accumulating),
    "combine": (["mgda", "moco", "famo"], {}, None, combining),
    "combine, replayed": (["mgda"], {"every": 2}, combining, combining),
    "compiled": (["mgda"], {}, None, in_compiled_region),
    "protect": (["mgda"], {"protect": "fused"}, plainly, plainly),
}


def gathered(model, surgery):
    """What micro-batches have gathered: the gradients that `combine` makes of it, or None.

    On copies, so that it stays gathered.
    """
    if surgery._gathered is None:  # a copy takes longer than a step
        return None
    model, surgery = copy.deepcopy((model, surgery))
    model.zero_grad()
    record = surgery.combine()
    return record.losses, plain(grads(model))


def told(model, surgery):
    """Everything that a Surgery keeps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = plain(surgery.state_dict())
    return state, gathered(model, surgery)


CASES = [
    (mode, name, existing)
    for mode, found in MODES.items()
    for name in found[0]
    for existing in ((False, True) if (mode, name) == ("plain", found[0][0]) else (True,))
]
# how much of a call is tried: each so many-th line of what leads to its end, and of the end, where
# things are written
STRIDES = {"sampled": (151, 8), "whole": (11, 1)}


@pytest.mark.sampled(keep=lambda name: "-sampled]" in name)
@pytest.mark.parametrize(
    ("mode", "name", "existing", "tried"),
    [
        *((*case, "whole") for case in CASES),
        *((mode, found[0][0], True, "sampled") for mode, found in MODES.items()),
    ],
)
def test_an_exception_at_every_line_leaves_all_or_nothing(mode, name, existing, tried, counting):
    """`.grad`, the state and later steps are as if the call had not been made, or as if it had been
    made whole.
    """
    _, options, first, make = MODES[mode]

    def start():
        model = compiled_losses()[0] if mode == "compiled" else TwoEncoders()
        model.zero_grad()
        surgery = gs.Surgery(name, model, **options)
        if first is not None:
            first(model, surgery, 5)()
        if not existing:
            model.zero_grad()
        elif first is None:
            sum(model.losses(6).values()).backward()
        return model, surgery, make(model, surgery, 0)

    def outcome(model, surgery):
        return grads(model), told(model, surgery)

    def finished(model, surgery):
        """What the next step makes of it."""
        if gathered(model, surgery) is not None:
            surgery.combine()
        return surgery.backward(model.losses(7)) and outcome(model, surgery)

    start()[2]()  # kinds of nodes that are met for the first time take a line more
    model, surgery, call = start()
    before = outcome(model, surgery)
    lines = interrupted(-1, call)
    after = outcome(model, surgery)
    assert not same(before[0], after[0]) or before[1] != after[1]
    last = finished(model, surgery)
    kept = 0
    lead, last_lines = STRIDES[tried]
    place = MODES[mode][0].index(name)
    if tried == "whole" and (mode, place) != ("plain", 0):
        lead = 31  # other lines for each strategy: most are the engine's, and the same
    end = max(1, lines - (250 if mode == "plain" else 60))
    leading, ending = range(1 + 5 * place, end, lead), range(end, lines + 1, last_lines)
    for count, k in enumerate([*leading, *ending]):
        model, surgery, call = start()
        assert interrupted(k, call) >= k
        found = outcome(model, surgery)
        if same(found[0], before[0]) and found[1] == before[1]:
            make(model, surgery, 0)()  # and the next step is the one that would have been
            found = outcome(model, surgery)
        else:
            kept += 1
        assert same(found[0], after[0]), k
        assert found[1] == after[1], k
        if count % 9 == 0:
            found = finished(model, surgery)
            assert same(found[0], last[0]), k
            assert found[1] == last[1], k
    assert mode != "plain" or kept > 0
    assert kept < 100  # the lines after the commit: three per parameter to look for hooks


def test_a_strategy_that_raises_or_returns_nonsense(counting):
    model = TwoEncoders()
    answers = {
        "raise": lambda: 1 / 0,
        "nan": lambda: [math.nan, 1.0],
        "shape": lambda: [1.0],
        "text": lambda: "weights",
        "none": lambda: None,
    }

    @gs.strategy("test-nonsense", paper="a test", scale="own")
    def nonsense(gram, *, kind="raise"):
        return answers[kind]()

    for kind, error, message in (
        ("raise", ZeroDivisionError, "zero"),
        ("nan", gs.NonFiniteError, "test-nonsense.*not finite"),
        ("shape", gs.StrategyError, r"audio\+fused.*shape \[1\]"),
        ("text", gs.StrategyError, "test-nonsense.*returned str"),
        ("none", gs.StrategyError, "test-nonsense.*returned NoneType"),
    ):
        with pytest.raises(error, match=message):
            gs.backward(model.losses(), model, "test-nonsense", kind=kind)
        assert all(p.grad is None for p in model.parameters())


def test_a_grad_that_cannot_be_added_to_stops_everything():
    model = TwoEncoders()
    model.visual_head.weight.grad = model.visual_head.weight.detach().to_sparse()
    with pytest.raises(gs.InputError, match="set it to None"):
        gs.backward(model.losses(), model, "mgda")
    assert all(p.grad is None for n, p in model.named_parameters() if n != "visual_head.weight")
