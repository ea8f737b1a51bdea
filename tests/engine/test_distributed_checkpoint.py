"""States through `torch.distributed.checkpoint`, which fills a template and drops the rest."""

import warnings

import pytest
import torch
from torch.distributed import checkpoint as dcp

import gradsurgery as gs
from gradsurgery.engine.history import History
from gradsurgery.engine.saved import as_saved
from tests.support.models import TwoEncoders
from tests.support.shipped import plain, ready, step

SAVED, LAST = 4, 8  # with every=3 the weights of step 3 are used again in step 4
FORMS = {
    "module": lambda model: model,
    "groups": lambda model: {"audio": model.audio, "rest": [model.fusion.weight]},
    "none": lambda model: None,
}
CASES = [
    ("mgda", {"every": 3}, "module"),
    ("moco", {}, "module"),
    ("moco", {}, "groups"),
    ("moco", {}, "none"),
    ("db-mtl", {}, "module"),
    ("famo", {}, "module"),
    ("nash-mtl", {"every": 3}, "module"),
    ("nash-mtl", {}, "none"),
    ("uw", {"every": 3}, "module"),
    ("uw", {}, "none"),
    ("gradvac", {}, "groups"),
]


@pytest.fixture(autouse=True)
def plainly():
    """Without a process group torch warns that it takes this to be one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(name, settings, form):
    model = TwoEncoders()
    strategy = ready(name, "audio")
    surgery = gs.Surgery(strategy, FORMS[form](model), seed=3, **settings)
    return model, surgery


def losses_of(model, k):
    return {name: loss + 0.1 for name, loss in model.losses(k).items()}


def train(model, surgery, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for k in steps:
        optimizer.zero_grad()
        step(surgery, losses_of(model, k), lambda k=k: losses_of(model, k + 50))
        optimizer.step()
        with torch.no_grad():
            surgery.observe(losses_of(model, k))


def save(model, surgery, folder, stateful):
    kept = surgery if stateful else surgery.state_dict()
    dcp.save({"model": model.state_dict(), "surgery": kept}, checkpoint_id=folder)


def load(model, surgery, folder, stateful):
    template = {
        "model": model.state_dict(),
        "surgery": surgery if stateful else surgery.state_dict(),
    }
    dcp.load(template, checkpoint_id=folder)
    model.load_state_dict(template["model"])
    if not stateful:
        surgery.load_state_dict(template["surgery"])


@pytest.mark.parametrize("stateful", [False, True], ids=["state_dict", "the Surgery itself"])
@pytest.mark.parametrize(("name", "settings", "form"), CASES, ids=str)
def test_a_fresh_surgery_goes_on_bit_for_bit(name, settings, form, stateful, tmp_path):
    """Saved, loaded, saved again, and loaded into one more; beside a run without a break."""
    model, surgery = whole = made(name, settings, form)
    train(model, surgery, range(SAVED))
    state = plain(surgery.state_dict())
    assert state["observed"]
    assert state["weights"]
    assert bool(state["reach"]) == (form != "none")
    assert bool(state["replay"]) == ("every" in settings)
    found = whole
    for folder in (tmp_path / "first", tmp_path / "second"):
        save(*found, folder, stateful)
        found = made(name, settings, form)
        load(*found, folder, stateful)
        assert plain(found[1].state_dict()) == state
    train(*found, range(SAVED, LAST))
    train(*whole, range(SAVED, LAST))
    assert plain(found[1].state_dict()) == plain(surgery.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(found[0].state_dict()[key], value), key


def test_what_a_strategy_keeps_is_in_the_template_of_a_surgery_without_steps(tmp_path):
    model, surgery = made("moco", {}, "module")
    train(model, surgery, range(SAVED))
    dcp.save({"surgery": surgery.state_dict()}, checkpoint_id=tmp_path)
    template = {"surgery": made("moco", {}, "module")[1].state_dict()}
    assert template["surgery"]["groups"] == ()
    dcp.load(template, checkpoint_id=tmp_path)
    kept = [state for _, state in template["surgery"]["groups"] if state["tensors"]]
    assert kept
    assert plain(template["surgery"]) == plain(surgery.state_dict())


def test_no_field_of_a_state_is_a_dict_or_a_list():
    """A dict in the template would lose what only the checkpoint has."""
    surgery = made("moco", {}, "module")[1]
    fields = {**surgery.state_dict(), **as_saved(History(), named=True)}
    assert not [name for name, value in fields.items() if isinstance(value, dict | list)]


def test_other_options_are_an_error_through_a_checkpoint_too(tmp_path):
    model = TwoEncoders()
    before = gs.Surgery("cagrad", model, c=0.4)
    dcp.save({"surgery": before}, checkpoint_id=tmp_path)
    with pytest.raises(gs.InputError, match=r"saved with cagrad\(c=0\.4\)"):
        dcp.load({"surgery": gs.Surgery("cagrad", model, c=0.8)}, checkpoint_id=tmp_path)
    with pytest.raises(gs.InputError, match="belongs to strategy 'cagrad'"):
        dcp.load({"surgery": gs.Surgery("mgda", model)}, checkpoint_id=tmp_path)


def test_a_checkpoint_without_a_newer_field_loads_in_parts(tmp_path):
    model, surgery = made("moco", {}, "module")
    train(model, surgery, range(SAVED))
    older = surgery.state_dict()
    assert older.pop("corrections") == ()
    dcp.save({"surgery": older}, checkpoint_id=tmp_path)
    resumed = made("moco", {}, "module")[1]
    planner = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"surgery": resumed}, checkpoint_id=tmp_path, planner=planner)
    assert plain(resumed.state_dict()) == plain(surgery.state_dict())
