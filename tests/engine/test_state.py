"""State by name: losses may be dropped, added and permuted, groups may split, and a checkpoint
continues.
"""

import io

import pytest
import torch

import gradsurgery as gs
from tests.support.models import Tree, TwoEncoders, grads, same

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def running(temporary):
    """A toy: each objective's weight is how often it was seen; a matrix of pairs; a counter; an
    average of the rows.
    """

    @gs.strategy("test-running", paper="a test", scale="own")
    def running(gram, objectives, state):
        seen = state.vector("seen", 0.0)
        seen += 1
        state.pairs("met", 0.0)[:] += gram != 0
        state.scalar("steps", 0.0)
        state["steps"] = state.scalar("steps") + 1
        return seen

    @gs.strategy("test-momentum", paper="a test", scale="own")
    def momentum(rows, state):
        average = state.rows("average")
        average.mul_(0.5).add_(rows, alpha=0.5)
        return average.sum(0)


def reload(surgery, new):
    """Through a file, with weights_only=True."""
    buffer = io.BytesIO()
    torch.save(surgery.state_dict(), buffer)
    buffer.seek(0)
    new.load_state_dict(torch.load(buffer, weights_only=True))
    return new


def pick(losses, names):
    return {n: losses[n] for n in names}


def test_dropped_added_and_permuted_losses():
    model = TwoEncoders()
    shared = {"encoder": model.audio, "rest": [model.fusion.weight]}
    surgery = gs.Surgery("test-running", shared, others="ignore")

    def step(order):
        return dict(
            zip(
                (r := surgery.backward(pick(model.losses(), order))["encoder"]).objectives,
                r.weights.tolist(),
                strict=True,
            )
        )

    assert step(["fused", "audio"]) == {"fused": 1, "audio": 1}
    assert step(["audio", "fused"]) == {"fused": 2, "audio": 2}
    assert (
        surgery.backward(pick(model.losses(), ["fused"]))["encoder"].strategy == "plain"
    )  # alone: no problem to solve
    assert step(["fused", "audio", "visual"]) == {"fused": 3, "audio": 3}
    state = surgery.state_dict()
    (key, saved), *_ = state["groups"]
    assert key == "encoder"
    assert dict(saved["numbers"]["seen"]) == {("fused",): 3.0, ("audio",): 3.0}


def test_a_permuted_step_is_the_same_step():
    orders = (["a", "b", "c", "d"], ["c", "a", "d", "b"], ["d", "c", "b", "a"])
    runs = []
    for orderings in ([orders[0]] * 3, orders):
        model = Tree()
        surgery = gs.Surgery("test-running", model)
        for order in orderings:
            record = surgery.backward(pick(model.losses(), order))
        runs.append(
            (
                grads(model),
                {
                    n: dict(zip(g.objectives, g.weights.tolist(), strict=True))
                    for n, g in record.items()
                },
            )
        )
    assert runs[0][1] == runs[1][1]
    for name, gradient in runs[0][0].items():
        assert torch.allclose(gradient, runs[1][0][name], rtol=1e-12)


@pytest.mark.parametrize("given", ["module", "list", "none"])
def test_a_later_loss_splits_a_group_and_both_parts_start_from_a_copy(given):
    model = Tree()
    parameters = {"module": model, "list": list(model.parameters()), "none": None}[given]
    surgery = gs.Surgery("test-running", parameters)
    for _ in range(3):  # a and b: root and left are one group
        record = surgery.backward(pick(model.losses(), "ab"))
    assert record["a+b"].weights.tolist() == [3, 3]
    assert record["a+b"].parameters == 4
    record = surgery.backward(model.losses())
    assert record["a+b"].weights.tolist() == [4, 4]
    assert record["a+b"].parameters == 2
    assert dict(
        zip(record["a+b+c+d"].objectives, record["a+b+c+d"].weights.tolist(), strict=True)
    ) == {"a": 4, "b": 4, "c": 1, "d": 1}
    record = surgery.backward(
        pick(model.losses(), "ab")
    )  # what reaches a group is the union so far: they stay apart
    assert record["a+b+c+d"].objectives == ("a", "b")
    assert record["a+b"].weights.tolist() == [5, 5]
    assert record["a+b+c+d"].weights.tolist() == [5, 5]


def test_two_groups_never_share_state():
    model = TwoEncoders()
    surgery = gs.Surgery("test-running", model)
    surgery.backward(model.losses())
    surgery.backward(pick(model.losses(), ["fused", "audio"]))
    record = surgery.backward(model.losses())
    assert record["audio+fused"].weights.tolist() == [3, 3]
    assert record["fused+visual"].weights.tolist() == [2, 2]


@pytest.mark.parametrize("name", ["test-running", "test-momentum", "pcgrad", "random"])
@pytest.mark.parametrize("given", ["module", "list", "dict", "none"])
def test_a_checkpoint_continues_bit_for_bit(name, given):
    def make():
        model = TwoEncoders()
        forms = {
            "module": model,
            "list": list(model.parameters()),
            "dict": {"e": model.audio, "v": model.visual},
            "none": None,
        }
        return model, gs.Surgery(name, forms[given], seed=7)

    model, surgery = make()
    for step in range(4):
        surgery.backward(model.losses(step))
    again, resumed = make()
    reload(surgery, resumed)
    for step in range(4, 7):
        names = ["visual", "fused", "audio"] if step == 4 else ["audio", "fused", "visual"]
        model.zero_grad()
        again.zero_grad()
        surgery.backward(pick(model.losses(step), names))
        resumed.backward(pick(again.losses(step), names))
        assert same(grads(model), grads(again)), step
    assert str(surgery.state_dict()) == str(resumed.state_dict()) or name == "test-momentum"


def test_without_given_parameters_the_first_step_after_loading_needs_every_loss():
    model = TwoEncoders()
    surgery = gs.Surgery("test-momentum")
    surgery.backward(model.losses())
    resumed = reload(surgery, gs.Surgery("test-momentum"))
    model.zero_grad()
    with pytest.raises(gs.InputError, match=r"lacks the losses 'visual'.*parameters=model"):
        resumed.backward(pick(model.losses(), ["fused", "audio"]))
    assert all(p.grad is None for p in model.parameters())
    resumed.backward(model.losses())
    other = TwoEncoders(width=7)
    with pytest.raises(gs.InputError, match="another model"):
        reload(surgery, gs.Surgery("test-momentum")).backward(other.losses())


def test_rows_follow_their_parameters_through_a_split():
    model = Tree()
    surgery = gs.Surgery("test-momentum", model)
    surgery.backward(pick(model.losses(), "ab"))
    model.zero_grad()
    surgery.backward(model.losses())
    expected = Tree()
    reference = {
        n: torch.autograd.grad(
            loss, list(expected.parameters()), retain_graph=True, allow_unused=True
        )
        for n, loss in expected.losses().items()
    }
    for i, (name, p) in enumerate(model.named_parameters()):
        if name.startswith("root"):
            found = 0.75 * (reference["a"][i] + reference["b"][i]) + 0.5 * (
                reference["c"][i] + reference["d"][i]
            )
            assert torch.allclose(p.grad, found)


def test_a_saved_state_holds_plain_things_only():
    model = TwoEncoders()
    surgery = gs.Surgery("test-momentum", model)
    surgery.backward(model.losses())

    def walk(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and walk(v) for k, v in value.items())
        if isinstance(value, tuple):
            return all(map(walk, value))
        return isinstance(value, torch.Tensor | str | int | float)

    assert walk(surgery.state_dict())
    assert reload(surgery, gs.Surgery("test-momentum", model)).state_dict()["step"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        None,
        3,
        {},
        {"strategy": "mgda"},
        {"strategy": "mgda", "step": 1, "reach": {}, "groups": ((1, 2, 3),)},
        {"strategy": "test-momentum", "step": "x"},
    ],
)
def test_a_bad_checkpoint_is_an_error_and_changes_nothing(bad):
    model = TwoEncoders()
    surgery = gs.Surgery("test-running", model)
    surgery.backward(model.losses())
    before = surgery.state_dict()
    if isinstance(bad, dict) and bad.get("strategy") == "mgda" and len(bad) > 1:
        bad = {**bad, "strategy": "test-running"}
    with pytest.raises(gs.InputError, match="load_state_dict|saved strategy state"):
        surgery.load_state_dict(bad)
    assert surgery.state_dict() == before


def test_one_shot_forms_refuse_state():
    model = TwoEncoders()
    with pytest.raises(gs.StrategyError, match="Surgery"):
        gs.backward(model.losses(), model, "test-running")
    with pytest.raises(gs.StrategyError, match="state="):
        gs.get_strategy("test-running").weights([[1.0]])
    state = gs.State()
    chosen = gs.get_strategy("test-running")
    assert chosen.weights([[1.0]], state=state).tolist() == [1.0]
    assert chosen.weights(
        [[1.0, 0.0], [0.0, 1.0]], state=state, objectives=("1", "0")
    ).tolist() == [1.0, 2.0]
    moving = gs.State()
    assert gs.get_strategy("test-momentum")(torch.ones(2, 3), state=moving).tolist() == [
        1.0,
        1.0,
        1.0,
    ]
    assert gs.get_strategy("test-momentum")(torch.ones(2, 3), state=moving).tolist() == [
        1.5,
        1.5,
        1.5,
    ]


def test_misuse_of_state_is_said():
    state = gs.State().bind(("a",))
    state.vector("x")
    with pytest.raises(gs.StrategyError, match="another kind"):
        state.pairs("x")
    with pytest.raises(gs.StrategyError, match="shape"):
        state["x"] = [1.0, 2.0]
    with pytest.raises(gs.StrategyError, match="read it first"):
        state["y"] = 1.0
    with pytest.raises(gs.StrategyError, match="no parameter tensors"):
        state.rows("z")
    with pytest.raises(gs.StrategyError, match="not bound"):
        gs.State().vector("x")
