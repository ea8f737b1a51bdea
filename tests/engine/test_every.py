"""every=: weights that are replayed."""

import math

import pytest
import torch

import gradsurgery as gs
from tests.support.models import Tree, TwoEncoders, both, by_loss, grads, same
from tests.support.shared_trunk import SharedTrunk, close, flat_grads
from tests.support.shipped import plain


@pytest.mark.parametrize("strategy", ["mgda", "uw", "cr-mogm(base='mgda')", "cagrad", "random"])
def test_every_replays_each_groups_weights(strategy):
    model = TwoEncoders()
    surgery = gs.Surgery(strategy, model, every=3)
    kept = {}
    for step in range(7):
        model.zero_grad()
        losses = model.losses(step)
        rows = {
            group: by_loss({n: losses[n] for n in group.split("+")}, list(part.parameters()))
            for group, part in (("audio+fused", model.audio), ("fused+visual", model.visual))
        }
        record = surgery.backward({n: losses[n] for n in sorted(losses)})
        for group, part in (("audio+fused", model.audio), ("fused+visual", model.visual)):
            assert record[group].replayed == (step % 3 != 0)
            if step % 3 == 0:
                kept[group] = torch.as_tensor(record[group].weights)
                assert strategy in ("uw", "random") or record[group].gram is not None
            else:
                assert record[group].gram is None
            close(flat_grads(part.parameters()), kept[group] @ rows[group])
        head = by_loss({"fused": model.losses(step)["fused"]}, list(model.fusion.parameters()))[0]
        close(flat_grads(model.fusion.parameters()), head * (record["fused"].weights[0]))
    assert record.step == 6


def test_every_solves_when_a_groups_objectives_change_and_resumes(tmp_path):
    model = Tree()
    surgery = gs.Surgery("mgda", model, every=5)
    replayed = []

    def step(surgery, names, seed):
        losses = model.losses(seed)
        record = surgery.backward({n: losses[n] for n in names})
        return max(g.replayed for g in record.groups.values() if len(g.objectives) > 1)

    for names in ("abcd", "abcd", "abc", "abc", "abcd", "abcd"):
        replayed.append(step(surgery, names, len(replayed)))
    assert replayed == [False, True, False, True, False, True]
    torch.save(surgery.state_dict(), tmp_path / "state.pt")
    resumed = gs.Surgery("mgda", model, every=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(6):
        model.zero_grad()
        first = step(surgery, "abcd", seed), grads(model)
        model.zero_grad()
        second = step(resumed, "abcd", seed), grads(model)
        assert first[0] == second[0]
        assert same(first[1], second[1])


def test_every_rejects_what_has_no_weights_to_replay():
    for name in ("graddrop", "trimmed-mean", "modo", "mmpareto(rescale='tensor')"):
        with pytest.raises(gs.InputError, match=r"every: strategy .* leave every=1"):
            gs.Surgery(name, every=2)
    for every in (0, -1, 1.5, True, "2"):
        with pytest.raises(gs.InputError, match="every: expected an integer >= 1"):
            gs.Surgery("mgda", every=every)


def test_replayed_steps_look_at_nan_too():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model, every=2)
    surgery.backward(model.losses())
    before, state = grads(model), plain(surgery.state_dict())
    losses = model.losses(1)
    losses["audio"] = losses["audio"] * math.nan
    with pytest.raises(gs.NonFiniteError, match="'audio'"):
        surgery.backward(losses)
    assert same(grads(model), before)
    assert plain(surgery.state_dict()) == state


@pytest.mark.parametrize("strategy", ["mgda", "uw"])
def test_every_and_features_and_a_scaler_together(strategy):
    model, other = SharedTrunk(), SharedTrunk()
    surgery, plainly = gs.Surgery(strategy, model, every=2), gs.Surgery(strategy, other, every=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for seed in range(3):
        model.zero_grad()
        other.zero_grad()
        losses, z = model.losses(seed)
        record = surgery.backward(losses, features=z, scaler=scaler)
        losses, z = other.losses(seed)
        plainly.backward(losses, features=z)
        assert all(torch.allclose(a, 4 * b, rtol=1e-9) for a, b in both(model, other))
        assert record["a+b+c"].replayed == (seed == 1)
