"""Right groups with nothing to configure: multimodal, multi-task, trees, shared nodes, and explicit
ones.
"""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.solvers import min_norm
from tests.support.models import Tree, TwoEncoders, flat, gradients_of, min_norm_point

pytestmark = pytest.mark.quick


def part(record, *names):
    return record["+".join(sorted(names))]


@pytest.mark.parametrize("parameters", ["module", "list", "none"])
def test_multimodal_with_nothing_to_configure(parameters):
    found_conflict = False
    for seed in range(20):
        model = TwoEncoders(seed)
        losses = model.losses(seed)
        reference = gradients_of(losses, model.parameters())
        names = [n for n, _ in model.named_parameters()]
        given = {"module": model, "list": list(model.parameters()), "none": None}[parameters]
        record = gs.backward(losses, given, "mgda")
        for encoder in ("audio", "visual"):
            index = [i for i, n in enumerate(names) if n.startswith(f"{encoder}.")]
            pair = [flat(reference[o][i] for i in index) for o in ("fused", encoder)]
            expected = min_norm_point(*pair)
            found = flat(p.grad for n, p in model.named_parameters() if n.startswith(f"{encoder}."))
            assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
            assert found.norm() > 0
            group = part(record, "fused", encoder)
            assert set(group.objectives) == {"fused", encoder}
            assert group.norms.tolist() == pytest.approx(
                [pair[0].norm().item(), pair[1].norm().item()]
            )
            found_conflict |= bool(group.conflicts)
        for head, loss in (("fusion", "fused"), ("audio_head", "audio"), ("visual_head", "visual")):
            for i, (name, p) in enumerate(model.named_parameters()):
                if name.startswith(f"{head}."):
                    assert torch.equal(p.grad, reference[loss][i])
            assert record[loss].strategy == "plain"
        assert all(
            p.grad is None for layer in (model.unused, model.frozen) for p in layer.parameters()
        )
        assert set(record) == {"audio+fused", "fused+visual", "fused", "audio", "visual"}
    assert found_conflict


def test_shared_trunk_with_n_heads():
    torch.manual_seed(0)
    trunk, heads = (
        nn.Linear(4, 6).double(),
        nn.ModuleList(nn.Linear(6, 1).double() for _ in range(5)),
    )
    features = trunk(torch.randn(7, 4).double()).tanh()
    losses = [head(features).pow(2).mean() * 10**i for i, head in enumerate(heads)]
    reference = [
        torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True) for loss in losses
    ]
    rows = torch.stack([flat(r) for r in reference])
    record = gs.backward(losses, nn.ModuleList([trunk, heads]), "mgda")
    weights = min_norm((rows @ rows.T).numpy(), "active-set").value
    found = flat(p.grad for p in trunk.parameters())
    assert torch.allclose(found, torch.as_tensor(weights) @ rows, rtol=1e-8)
    assert record["0+1+2+3+4"].gram == pytest.approx((rows @ rows.T).numpy(), rel=1e-12)
    assert len(record) == 6


def test_tree_of_partly_shared_trunks():
    model = Tree()
    losses = model.losses()
    reference = gradients_of(losses, model.parameters())
    index = {n: i for i, (n, _) in enumerate(model.named_parameters())}
    record = gs.backward(losses, model, "mgda")
    assert set(record) == {"a+b+c+d", "a+b", "c+d", "a", "b", "c", "d"}
    for module, names in (("root", "abcd"), ("left", "ab"), ("right", "cd")):
        own = [i for n, i in index.items() if n.startswith(f"{module}.")]
        rows = torch.stack([flat(reference[o][i] for i in own) for o in names])
        expected = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ rows
        found = flat(p.grad for n, p in model.named_parameters() if n.startswith(f"{module}."))
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-12)
    for name in "abcd":
        for n, p in model.heads[name].named_parameters():
            assert torch.equal(p.grad, reference[name][index[f"heads.{name}.{n}"]])


def test_tasks_that_share_nodes_after_the_trunk():
    """TorchJD's "backward a second time": both losses use one node after the features."""
    torch.manual_seed(0)
    trunk, after, head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
    features = after(trunk(torch.randn(5, 3)).relu()).sigmoid()
    shared = features.pow(2)
    losses = {"a": shared.mean(), "b": -(shared * features).sum() + head(features).mean()}
    reference = gradients_of(losses, [*trunk.parameters(), *after.parameters()])
    rows = torch.stack([flat(reference[o]) for o in "ab"]).double()
    gs.backward(losses, None, "mgda")
    found = flat(p.grad for m in (trunk, after) for p in m.parameters())
    assert torch.allclose(found.double(), min_norm_point(*rows), rtol=1e-4, atol=1e-7)


def test_explicit_groups_override():
    model = TwoEncoders()
    losses = model.losses()
    encoders = {
        "encoders": [*model.audio.parameters(), *model.visual.parameters()],
        "heads": nn.ModuleList([model.audio_head, model.fusion]),
    }
    reference = gradients_of(losses, encoders["encoders"])
    record = gs.backward(losses, encoders, "mgda")
    assert set(record) == {"encoders", "heads", "others"}
    assert record["encoders"].objectives == ("fused", "audio", "visual")
    zero = [torch.zeros_like(p) for p in encoders["encoders"]]
    rows = torch.stack(
        [
            flat(z if g is None else g for g, z in zip(reference[o], zero, strict=True))
            for o in losses
        ]
    )
    expected = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ rows
    assert torch.allclose(flat(p.grad for p in encoders["encoders"]), expected, rtol=1e-8)
    assert record["heads"].objectives == (
        "fused",
        "audio",
    )  # visual reaches none of it and is dropped
    assert model.visual_head.weight.grad is not None
    assert record["others"].strategy == "plain"


def test_others_ignore_and_unreached():
    model = TwoEncoders()
    record = gs.backward(model.losses(), model.audio, "mgda", others="ignore")
    assert set(record) == {"audio+fused"}
    assert all((p.grad is not None) == n.startswith("audio.") for n, p in model.named_parameters())


def test_min_objectives():
    model = TwoEncoders()
    assert (
        gs.backward(model.losses(), model, "mgda", min_objectives=3)["audio+fused"].strategy
        == "plain"
    )
    record = gs.backward(model.losses(), {"audio": model.audio_head}, "mgda", min_objectives=1)
    assert record["audio"].strategy == "mgda"


def test_inputs_that_require_grad_get_the_plain_sum_unless_given():
    x = torch.randn(4, 3, requires_grad=True)
    model = nn.Linear(3, 1)
    losses = {"fit": model(x).mean(), "smooth": model(x).pow(2).mean() + x.pow(2).sum()}
    (expected,) = torch.autograd.grad(sum(losses.values()), [x], retain_graph=True)
    gs.backward(losses, retain_graph=True)
    assert torch.allclose(x.grad, expected)
    assert model.weight.grad is not None
    x.grad = None
    gs.backward(losses, others="ignore", retain_graph=True)
    assert x.grad is None
    record = gs.backward(losses, [x], "mgda", others="ignore")
    assert x.grad is not None
    assert record["fit+smooth"].parameters == 1


def test_weight_tying_reuse_and_a_penalty():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).double()
    tied = nn.Linear(4, 4, bias=False).double()
    tied.weight = layer.weight
    x = torch.randn(5, 4).double()
    losses = {
        "task": tied(layer(layer(x)).tanh()).pow(2).mean(),
        "penalty": layer.weight.pow(2).sum(),
        "same": None,
    }
    losses["same"] = losses["task"]
    reference = gradients_of(losses, layer.parameters())
    record = gs.backward(losses, nn.ModuleList([layer, tied]), "sum")
    assert torch.allclose(layer.weight.grad, sum(reference[o][0] for o in losses))
    assert torch.allclose(layer.bias.grad, 2 * reference["task"][1])
    assert set(record) == {"penalty+same+task", "same+task"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda m: {"a": m.audio, "b": m}, "two groups"),
        (lambda m: {}, "no groups"),
        (lambda m: m.state_dict().keys(), "expected a tensor; got str"),
        (lambda m: m.named_parameters(), "expected a tensor; got tuple"),
        (lambda m: 3, "got int"),
        (lambda m: m.unused, "reach none"),
        (lambda m: [m.fusion.weight * 1], "not a leaf"),
        (lambda m: [torch.ones(2, dtype=torch.complex64, requires_grad=True)], "reach none"),
    ],
)
def test_bad_parameters(given, message):
    model = TwoEncoders()
    with pytest.raises(gs.InputError, match=message):
        gs.backward(model.losses(), given(model), "mgda")
    assert all(p.grad is None for p in model.parameters())


def test_no_parameter_reached():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(gs.InputError, match=r"no nn\.Parameter"):
        gs.backward([x.sum()])


def test_reentrant_checkpoint_is_a_clear_error():
    from torch.utils.checkpoint import checkpoint

    model = TwoEncoders()
    x = torch.randn(3, 4, requires_grad=True, dtype=torch.float64)
    hidden = checkpoint(model.audio, x, use_reentrant=True)
    with pytest.raises(gs.InputError, match="use_reentrant=False"):
        gs.backward({"a": model.audio_head(hidden).sum(), "b": hidden.pow(2).sum()}, model, "mgda")
    fine = checkpoint(model.audio, x, use_reentrant=False)
    gs.backward({"a": model.audio_head(fine).sum(), "b": fine.pow(2).sum()}, model, "mgda")
    assert model.audio[0].weight.grad is not None


def test_stacked_losses_reach_what_each_of_them_reaches():
    """One 1-d tensor, or what comes of iterating over it, gives the groups and gradients of the
    losses themselves.
    """
    from tests.support.models import Tree, grads

    def step(form):
        model = Tree()
        losses = list(model.losses().values())
        record = gs.backward(form(losses), model, "mgda")
        return {name: group.parameters for name, group in record.items()}, grads(model)

    expected, gradients = step(list)
    assert len(expected) == 7
    for form in (
        torch.stack,
        lambda losses: list(torch.stack(losses)),
        lambda losses: torch.stack(losses).unbind(),
    ):
        groups, found = step(form)
        assert groups == expected
        assert all(torch.equal(found[name], gradient) for name, gradient in gradients.items())


def test_stacked_losses_one_of_which_is_constant():
    weight = torch.nn.Parameter(torch.ones(2))
    stacked = torch.stack([weight.sum(), torch.tensor(3.0), (weight * weight).sum()])
    record = gs.backward(stacked)
    assert record["0+2"].objectives == ("0", "2")
    assert weight.grad.tolist() == [3.0, 3.0]
