"""What has to be the same on all ranks, and is not, is the same error on every rank."""

import contextlib
import re

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.hostile import Run, ended
from tests.support.joined import Tasks

pytestmark = pytest.mark.exhaustive


def settings(common, odd):
    """Surgeries made in two ways."""

    def call(run):
        run.make(**run.either(common, odd)).backward(run.losses())

    return call


def models(common, odd):
    """Models made in two ways."""

    def call(run):
        model = run.either(common, odd)()
        run.make(parameters=model).backward(model.losses(0, run.rows))

    return call


def another(shape):
    model = Tasks()
    model.trunk = nn.Sequential(nn.Linear(4, shape), nn.Tanh(), nn.Linear(shape, 5))
    return model


def frozen():
    model = Tasks()
    model.trunk[0].bias.requires_grad_(False)
    return model


def one_more():
    model = Tasks()
    model.more = nn.Linear(2, 2)
    return model


def frozen_later(run):
    model = Tasks()
    surgery = run.make(parameters=model)
    model.trunk[2].weight.requires_grad_(not run.bad)
    surgery.backward(model.losses(0, run.rows))


def groups(common, odd):
    def call(run):
        trunk, heads = run.model.trunk, run.model.heads
        both = {"trunk": trunk, "heads": heads}
        kinds = {"explicit": both, "reversed": dict(reversed(both.items())), "by reach": run.model}
        run.make(parameters=kinds[run.either(common, odd)]).backward(run.losses())

    return call


def weights(run):
    run.surgery.backward(run.losses(), weights={"a": 1, "b": run.either(1, 2), "c": 1})


@contextlib.contextmanager
def restored(run):
    """After it the Surgery is as if nothing had been loaded or forgotten."""
    history, describing = run.surgery._history, run.surgery._communicator._describing
    try:
        yield
    finally:
        run.surgery._history, describing._origin = history, 0


def another_step(run):
    other = Run(None)
    other.surgery.backward(other.losses())
    with restored(run):
        if run.bad:
            run.surgery.load_state_dict(other.surgery.state_dict())
        run.surgery.backward(run.losses())


def forgotten(run):
    with restored(run):
        if run.bad:
            run.surgery.forget("a")
        run.surgery.backward(run.losses())


def another_state(run):
    """As many steps, in which other things were seen."""
    one, other = Run(None, "moco"), Run(None, "moco")
    for step in range(2):
        one.surgery.backward(one.losses(step))
        other.surgery.backward(other.losses(5 + step))
    surgery = run.make("moco")
    surgery.load_state_dict(run.either(one, other).surgery.state_dict())
    try:
        surgery.backward(run.losses())
    finally:
        run.made.remove(surgery)


def scales(common, odd):
    def call(run):
        scale = run.either(common, odd)
        scaler = scale and torch.amp.GradScaler("cpu", init_scale=scale)
        run.surgery.backward(run.losses(), scaler=scaler)

    return call


def calls(what):
    """Another method on one rank."""

    def call(run):
        losses = run.losses()
        if run.bad:
            return what(run, losses)
        return run.surgery.backward(losses)

    return call


def inspects(run, losses):
    gs.inspect(losses, run.model, process_group=run.surgery._config.process_group)


def observes(run, losses):
    run.surgery.observe({name: loss.item() for name, loss in losses.items()})


def observed_by_most(run):
    losses = run.losses()
    if run.bad:
        run.surgery.backward(losses)
    else:
        observes(run, losses)


def features(run):
    z = run.model.trunk(torch.ones(2, 4))
    losses = {name: head(z).sum() for name, head in run.model.heads.items()}
    run.surgery.backward(losses, features=run.either(None, z))


def batches(run):
    run.make("modo").backward([run.losses(k) for k in range(run.either(3, 2))])


def no_batches(run):
    run.make("modo").backward(run.either([run.losses(k) for k in range(3)], {}))


def bad_scores(run):
    scores = {"a+b+c": run.either(1.0, float("nan"))}
    run.make("ogm-ge").backward(run.losses(), scores=scores)


def gathered_on_one(run):
    if run.bad:
        return run.surgery.combine()
    return run.surgery.backward(run.losses())


REFUSED = {  # what differs -> the error on every rank, and what it says there
    "strategy": (
        settings({}, {"strategy": "upgrad"}),
        "InputError",
        "the strategy: .*mgda.*upgrad",
    ),
    "options": (
        settings(
            {"strategy": gs.get_strategy("cagrad", c=0.4)},
            {"strategy": gs.get_strategy("cagrad", c=0.5)},
        ),
        "InputError",
        "its options: .*0.4.*0.5",
    ),
    "seed": (settings({}, {"seed": 3}), "InputError", "seed=: rank 0 has 0, rank 1 has 3"),
    "every": (settings({}, {"every": 3}), "InputError", "every="),
    "zero": (settings({}, {"zero": "absent"}), "InputError", "zero=: .*keep.*absent"),
    "length": (settings({}, {"length": "sum"}), "InputError", "length=: .*None.*sum"),
    "protect": (settings({}, {"protect": "a"}), "InputError", "protect="),
    "memory": (settings({}, {"memory": "low"}), "InputError", "memory=: .*auto.*low"),
    "measure": (settings({}, {"measure": 2}), "InputError", "measure="),
    "nonfinite": (settings({}, {"nonfinite": "ignore"}), "InputError", "nonfinite="),
    "others": (settings({}, {"others": "ignore"}), "InputError", "others="),
    "fewest": (settings({}, {"min_objectives": 3}), "InputError", "min_objectives="),
    "dtype": (
        models(Tasks, lambda: Tasks(torch.float64)),
        "InputError",
        "'trunk.0.weight': .*float32.*float64",
    ),
    "shape": (models(Tasks, lambda: another(8)), "InputError", r"'trunk.0.weight': .*7, 4.*8, 4"),
    "frozen": (models(Tasks, frozen), "InputError", "'trunk.0.bias': .*none"),
    "frozen later": (frozen_later, "InputError", "'trunk.2.weight': .*none"),
    "one more": (models(Tasks, one_more), "InputError", "'more.weight': rank 0 has none"),
    "order of groups": (groups("explicit", "reversed"), "InputError", "the explicit groups"),
    "kind of groups": (groups("by reach", "explicit"), "InputError", "the explicit groups"),
    "weights": (weights, "InputError", "the weight of loss 'b': rank 0 has 1.0, rank 1 has 2.0"),
    "step": (another_step, "InputError", "steps before: rank 0 has 1, rank 1 has 2. Load"),
    "state": (another_state, "InputError", "their states: .* load_state_dict with the same state"),
    "forget": (forgotten, "InputError", "their states: .* and forget, on all ranks"),
    "scale": (scales(4.0, 8.0), "InputError", "GradScaler's factor: rank 0 has 4.0, rank 1 has 8"),
    "scaler": (scales(4.0, None), "InputError", "GradScaler's factor: rank 0 has 4.0.*None"),
    "accumulate": (calls(lambda run, x: run.surgery.accumulate(x)), "InputError", "what is called"),
    "inspect": (calls(inspects), "InputError", "what is called: .*backward, rank 1 has inspect"),
    "observe": (calls(observes), "InputError", "what is called: .*backward, rank 1 has observe"),
    "backward": (observed_by_most, "InputError", "called: rank 0 has observe, rank 1 has backward"),
    "combine": (gathered_on_one, "InputError", "nothing was gathered"),
    "features": (features, "InputError", "the features: .*features"),
    "list": (calls(lambda r, x: r.surgery.backward([x] * 2)), "StrategyError", "a list of 2 dicts"),
    "batches": (batches, "InputError", "the number of batches: rank 0 has 3, rank 1 has 2"),
    "no batches": (no_batches, "StrategyError", "independent batches"),
    "scores": (bad_scores, "InputError", "positive scores"),
}


def test_what_has_to_be_the_same_is_refused_on_every_rank():
    found = ended([call for call, _, _ in REFUSED.values()])
    for what, (call, kind, text) in REFUSED.items():
        for rank, (said, *_) in enumerate(found[call]):
            assert said[0] == kind, (what, rank, said)
            assert re.search(text, said[1], re.S), (what, rank, said)
