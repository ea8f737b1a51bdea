"""What goes wrong on one rank is an error on every rank, and changes nothing on any."""

import re

import pytest
import torch
import torch.distributed as dist

import gradsurgery as gs
from gradsurgery.gradients.matrix import GradientMatrix
from tests.engine.parallel.test_parts import ROWS
from tests.support.joined import Tasks
from tests.support.ranks import on_ranks
from tests.support.shipped import plain

WORLD, BAD = 3, 1  # the rank on which it goes wrong


class Case:
    """A model and a Surgery on one rank, of which `bad` says whether it is to go wrong here."""

    def __init__(self, rank, strategy="mgda", **settings):
        self.rank, self.bad = rank, rank == BAD
        self.model = Tasks()
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        group = dist.group.WORLD
        self.surgery = gs.Surgery(strategy, self.model, process_group=group, **settings)
        self.surgery.backward(self.losses())

    def losses(self, step=0):
        return self.model.losses(step, ROWS[self.rank])

    def seen(self):
        return [p.grad.clone() for p in self.model.parameters()], plain(self.surgery.state_dict())

    def ends(self, call):
        """What the call raises, whether it changed anything, and whether a next step goes well."""
        before, said = self.seen(), ("", "")
        try:
            call(self)
        except BaseException as error:
            said = type(error).__name__, str(error)
        grads, state = self.seen()
        same = all(map(torch.equal, grads, before[0])) and state == before[1]
        self.surgery.discard()
        record = self.surgery.backward(self.losses(1))
        return said, same, record.losses, [g.sum().item() for g in self.seen()[0]]


def hooked(case, what, name="trunk.0.weight"):
    """A hook on a parameter's gradient, on the bad rank."""
    parameter = case.model.get_parameter(name)
    return parameter.register_hook(what) if case.bad else None


def during(case, what, name="trunk.0.weight"):
    hook = hooked(case, what, name)
    try:
        case.surgery.backward(case.losses())
    finally:
        if hook is not None:
            hook.remove()


def raises(error):
    def hook(gradient):
        raise error

    return hook


def bad_loss(case):
    losses = case.losses()
    case.surgery.backward({**losses, "a": torch.ones(2)} if case.bad else losses)


def bad_weight(case):
    weights = {"a": 1.0, "b": 1.0, "d" if case.bad else "c": 1.0}
    case.surgery.backward(case.losses(), weights=weights)


def pending(case):
    if case.bad:
        case.surgery._gathered = object()
    try:
        case.surgery.backward(case.losses())
    finally:
        case.surgery._gathered = None


def not_reached(case):
    own = torch.ones((), requires_grad=True)
    case.surgery.backward({"a": own * 2} if case.bad else case.losses())


def not_given(case):
    extra = torch.nn.Parameter(torch.ones(()))
    case.surgery.backward({n: loss * extra for n, loss in case.losses().items()})


def nan_loss(case):
    losses = case.losses()
    case.surgery.backward({**losses, "b": losses["b"] * torch.nan} if case.bad else losses)


def nan_gradient(case):
    during(case, lambda gradient: gradient * torch.nan)


def nan_in_a_head(case):
    during(case, lambda gradient: gradient * torch.nan, "heads.c.weight")


def value_error(case):
    during(case, raises(ValueError("an odd layer")))


def memory_error(case):
    during(case, raises(MemoryError("no room")))


def device_memory(case):
    during(case, raises(torch.OutOfMemoryError("no room there")))


def interrupted(case):
    during(case, raises(KeyboardInterrupt()))


def sparse(case):
    table = torch.nn.Embedding(4, 3, sparse=True)
    seen = table(torch.tensor([0, 2]))
    gs.backward([seen.sum(), seen.pow(2).sum()], table, "sum", process_group=dist.group.WORLD)


def grad_that_cannot_take(case):
    weight = case.model.trunk[0].weight
    before = weight.grad
    if case.bad:
        weight.grad = before[:1].expand_as(weight)
    try:
        case.surgery.backward(case.losses())
    finally:
        weight.grad = before


def no_room_to_combine(case):
    combine = GradientMatrix.combine
    if case.bad:
        GradientMatrix.combine = lambda *_: raises(MemoryError("no room"))(None)
    try:
        case.surgery.backward(case.losses())
    finally:
        GradientMatrix.combine = combine


def accumulated_nan(case):
    case.surgery.accumulate(case.losses())
    kept = [row["trunk.0.weight"].clone() for row in case.surgery._gathered.rows]
    losses = case.losses()
    try:
        case.surgery.accumulate({**losses, "b": losses["b"] * torch.nan} if case.bad else losses)
    finally:
        rows = case.surgery._gathered.rows
        case.surgery.discard()
        assert all(torch.equal(a, row["trunk.0.weight"]) for a, row in zip(kept, rows, strict=True))


def inspected(case):
    hook = hooked(case, raises(ValueError("an odd layer")))
    try:
        gs.inspect(case.losses(), case.model, process_group=dist.group.WORLD)
    finally:
        if hook is not None:
            hook.remove()


def observed(case):
    losses = {name: loss.item() for name, loss in case.losses().items()}
    case.surgery.observe({**losses, "a": float("nan")} if case.bad else losses)


def another_call(case):
    losses = case.losses()
    if case.bad:
        case.surgery.accumulate(losses)
    else:
        case.surgery.backward(losses)


def no_losses(case):
    case.surgery.backward({})


def no_examples(case):
    case.surgery.backward(case.losses(), count=0)


LOCAL = {  # what it is -> the error on the bad rank, and what it says
    bad_loss: ("InputError", "loss 'a'"),
    bad_weight: ("InputError", "'d'"),
    pending: ("InputError", r"combine\(\)"),
    not_reached: ("InputError", "reach none"),
    value_error: ("ValueError", "an odd layer"),
    memory_error: ("MemoryError", "no room"),
    device_memory: ("OutOfMemoryError", "no room there"),
    interrupted: ("KeyboardInterrupt", ""),
    grad_that_cannot_take: ("InputError", "expanded"),
    no_room_to_combine: ("MemoryError", "no room"),
    inspected: ("ValueError", "an odd layer"),
    observed: ("InputError", "loss 'a' is nan"),
}
EVERYWHERE = {  # the same on every rank
    not_given: ("InputError", "was not given"),
    sparse: ("InputError", "is sparse"),
    nan_loss: ("NonFiniteError", "rank 1: loss 'b' is nan"),
    nan_gradient: ("NonFiniteError", "rank 1: .*group 'a.b.c'"),
    nan_in_a_head: ("NonFiniteError", "rank 1: .*objective 'c'.* group 'c'"),
    accumulated_nan: ("NonFiniteError", "loss 'b' is nan"),
    another_call: ("InputError", "what is called: rank 0 has backward, rank 1 has accumulate"),
    no_losses: ("InputError", "no rank has any"),
    no_examples: ("InputError", "no rank has an example"),
}
STEPS = [value_error, memory_error, grad_that_cannot_take, nan_loss, nan_gradient, nan_in_a_head]


def on_rank(rank, cases, strategy, settings):
    return [Case(rank, strategy, **settings).ends(case) for case in cases]


def agreed(cases, strategy="mgda", **settings):
    ranks = on_ranks(WORLD, on_rank, cases, strategy, settings, limit=60, timeout=15)
    for i, case in enumerate(cases):
        ends = [own[i] for own in ranks]
        kind, text = LOCAL.get(case) or EVERYWHERE[case]
        known = issubclass(getattr(gs, kind, object), gs.GradSurgeryError)
        for rank, (said, same, losses, grads) in enumerate(ends):
            assert same, (case, rank)
            assert losses == ends[0][2], case
            assert grads == ends[0][3], case
            mine = case in EVERYWHERE or rank == BAD
            wanted = kind if mine or known else "RankError"
            prefix = "" if mine else f"rank {BAD}: "
            pattern = text if mine or known else f"{kind}: {text}"
            assert said[0] == wanted, (case, rank, said)
            assert said[1].startswith(prefix), (case, rank, said)
            assert re.search(pattern, said[1], re.S), (case, rank, said)


def test_a_fault_of_one_rank_ends_the_call_on_all():
    agreed([*LOCAL])


def test_what_all_ranks_see_is_the_same_error_on_all():
    agreed([*EVERYWHERE])


@pytest.mark.parametrize("strategy", ["sum", "uw", "graddrop", "pcgrad"])
def test_faults_in_steps_of_every_kind(strategy):
    agreed(STEPS, strategy)


@pytest.mark.parametrize("settings", [{"memory": "low"}, {"measure": 1}, {"every": 2}], ids=str)
def test_faults_under_settings(settings):
    agreed(STEPS, "mgda" if "measure" not in settings else "sum", **settings)
