"""States that earlier versions saved load, and go on as a run that was never interrupted."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import gradsurgery as gs

STEPS = 3  # after which the states below were saved, by the version before the engine was rebuilt


def float64(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


class Two(nn.Module):
    """A trunk of two numbers and two heads of one, without anything random."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Parameter(float64([0.5, -1.0]))
        self.a, self.b = nn.Parameter(float64([2.0])), nn.Parameter(float64([-0.5]))

    def losses(self, step):
        first, second = self.trunk.unbind()
        return {
            "a": (self.a * (first - 0.25 * second) - 0.5 * step).pow(2).sum(),
            "b": (self.b + first * second + 0.125 * step).pow(2).sum() + 1.0,
        }


FORMS = {
    "module": lambda model: model,
    "groups": lambda model: {"trunk": [model.trunk], "heads": [model.a, model.b]},
    "none": lambda model: None,
}


class Saved(NamedTuple):
    strategy: str
    settings: dict[str, Any]
    form: str
    parameters: dict[str, list[float]]
    state: dict[str, Any]


def train(model, surgery, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0625)
    for step in steps:
        optimizer.zero_grad()
        surgery.backward(model.losses(step))
        optimizer.step()
        with torch.no_grad():
            surgery.observe(model.losses(step))


# fmt: off
SAVED = [
    Saved('famo', {}, 'module',
        {'trunk': [0.21438331995824156, -0.9119880199407017],
         'a': [1.9225567903080105],
         'b': [-0.42169268274477684]},
        {'strategy': 'famo',
         'options': {'lr': '0.025', 'weight_decay': '0.001', 'minimum': '0.0'},
         'explicit': (),
         'step': 3,
         'reach': {'trunk': ('a', 'b'), 'a': ('a',), 'b': ('b',)},
         'groups': (('losses',
                     {'numbers': {'xi': ((('a',), -0.049029588150055994),
                                         (('b',), 0.049029588150055994)),
                                  'last': ((('a',), 0.07459379321141235),
                                           (('b',), 1.098939141201326)),
                                  'xi/first moment': ((('a',), 0.04503549549474825),
                                                      (('b',), -0.045035495494748244)),
                                  'xi/second moment': ((('a',), 0.0001215633754400788),
                                                       (('b',), 0.00012156337544007875)),
                                  'xi/steps': ((('a',), 2.0), (('b',), 2.0))},
                      'tensors': {}}),),
         'observed': {'a': 0.022349862013713338, 'b': 1.1348414965710196},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 2,
         'numbered': 0,
         'replay': ()}),
    Saved('moco', {}, 'groups',
        {'trunk': [0.31823664245667216, -0.933030293246373],
         'a': [1.911779443630005],
         'b': [-0.39354789467826123]},
        {'strategy': 'moco',
         'options': {'beta': '0.5',
                     'beta_decay': '0.5',
                     'gamma': '0.1',
                     'gamma_decay': '0.5',
                     'rho': '0.0'},
         'explicit': ('trunk', 'heads'),
         'step': 3,
         'reach': {'trunk/0': ('a', 'b'), 'heads/0': ('a',), 'heads/1': ('b',)},
         'groups': (('trunk',
                     {'numbers': {'steps': (((), 3.0),),
                                  'lambda': ((('a',), 0.5171062241948646),
                                             (('b',), 0.4828937758051353))},
                      'tensors': {'running': ((('a', 'trunk/0'),
                                               float64([0.6840900911279654, -0.17102252278199134])),
                                              (('b', 'trunk/0'),
            float64([1.1238043478858692, -0.5056361283885269])))}}),
                    ('heads',
                     {'numbers': {'steps': (((), 3.0),),
                                  'lambda': ((('a',), 0.517541537966375),
                                             (('b',), 0.48245846203362486))},
                      'tensors': {'running': ((('a', 'heads/0'), float64([0.7051439257897528])),
                                              (('a', 'heads/1'), float64([0.0])),
                                              (('b', 'heads/0'), float64([0.0])),
                                              (('b', 'heads/1'),
                                               float64([-1.2331449872199856])))}})),
         'observed': {'a': 0.0029523253679890585, 'b': 1.1940158668985437},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 2,
         'numbered': 0,
         'replay': ()}),
    Saved('moco', {}, 'none',
        {'trunk': [0.3239042684099327, -0.9349892515380096],
         'a': [1.7857824838589298],
         'b': [-0.24022789185907004]},
        {'strategy': 'moco',
         'options': {'beta': '0.5',
                     'beta_decay': '0.5',
                     'gamma': '0.1',
                     'gamma_decay': '0.5',
                     'rho': '0.0'},
         'explicit': (),
         'step': 3,
         'reach': {},
         'groups': ((('a', 'b'),
                     {'numbers': {'steps': (((), 3.0),),
                                  'lambda': ((('a',), 0.5147532102373987),
                                             (('b',), 0.48524678976260127))},
                      'tensors': {'running': ((('a', '#0'),
                                               float64([0.6491136008182596, -0.1622784002045649])),
                                              (('b', '#0'),
            float64([1.0578103424699465, -0.47874323412985886])))}}),),
         'observed': {'a': 1.7268795503548588e-05, 'b': 1.0858928978011009},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 2,
         'numbered': 1,
         'replay': ()}),
    Saved('gradnorm', {}, 'module',
        {'trunk': [0.12201363124098717, -0.8835921357857827],
         'a': [1.8781978824330252],
         'b': [-0.33230749222876155]},
        {'strategy': 'gradnorm',
         'options': {'alpha': '1.5', 'lr': '0.025', 'optimizer': "'adam'"},
         'explicit': (),
         'step': 3,
         'reach': {'trunk': ('a', 'b'), 'a': ('a',), 'b': ('b',)},
         'groups': ((('a', 'b'),
                     {'numbers': {'weights': ((('a',), 0.9281413227871984),
                                              (('b',), 1.0718586772128016)),
                                  'first': ((('a',), 2.25), (('b',), 2.0)),
                                  'weights/first moment': ((('a',), 0.40399699944071343),
                                                           (('b',), -0.14697033851954)),
                                  'weights/second moment': ((('a',), 0.006971833778573043),
                                                            (('b',), 0.0013178862972094444)),
                                  'weights/steps': ((('a',), 3.0), (('b',), 3.0))},
                      'tensors': {}}),),
         'observed': {'a': 0.12669615717927138, 'b': 1.0361447692272274},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 2,
         'numbered': 0,
         'replay': ()}),
    Saved('mgda', {'every': 4}, 'module',
        {'trunk': [0.2673717991514195, -0.8968668995530038],
         'a': [1.8135985993001906],
         'b': [-0.2589683039113879]},
        {'strategy': 'mgda',
         'options': {'normalize': "'none'", 'solver': "'auto'"},
         'explicit': (),
         'step': 3,
         'reach': {'trunk': ('a', 'b'), 'a': ('a',), 'b': ('b',)},
         'groups': (),
         'observed': {'a': 0.011762647836030772, 'b': 1.0618841349026664},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 0,
         'numbered': 0,
         'replay': ((('a', 'b'), {'a': 0.0, 'b': 1.0}),)}),
    Saved('gradvac', {}, 'none',
        {'trunk': [-0.0020722606683326646, -0.8939962354640856],
         'a': [1.8782683951137054],
         'b': [-0.33219731489140647]},
        {'strategy': 'gradvac',
         'options': {'beta': '0.01'},
         'explicit': (),
         'step': 3,
         'reach': {},
         'groups': ((('a', 'b'),
                     {'numbers': {'target': ((('a', 'a'), 0.0),
                                             (('a', 'b'), -0.009733815441665227),
                                             (('b', 'a'), -0.009733815441665229),
                                             (('b', 'b'), 0.0))},
                      'tensors': {}}),),
         'observed': {'a': 0.34117402856693396, 'b': 1.0064552742978221},
         'weights': {'a': 1.0, 'b': 1.0},
         'solved': 2,
         'numbered': 1,
         'replay': ()}),
]
# fmt: on


def plain(value):
    """Tensors as lists, so that states compare; numbers to what another platform may give."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(f"{value:.9e}") if isinstance(value, float) else value


def of_now(state):
    """The same as it is saved now: what was a dict by name is pairs; corrections count."""
    pairs = ("options", "reach", "observed", "weights")
    found = {k: tuple(v.items()) if k in pairs else v for k, v in state.items()}
    return {**found, "corrections": ()}


@pytest.mark.parametrize("older", [False, True], ids=["last", "without options"])
@pytest.mark.parametrize("saved", SAVED, ids=lambda saved: f"{saved.strategy}-{saved.form}")
def test_a_state_of_an_earlier_version_goes_on_as_an_uninterrupted_run(saved, older):
    whole, resumed = Two(), Two()
    make = {"strategy": saved.strategy, **saved.settings}
    uninterrupted = gs.Surgery(parameters=FORMS[saved.form](whole), **make)
    train(whole, uninterrupted, range(STEPS))
    known = saved.state["options"]  # a strategy may have more of them now
    now = uninterrupted.state_dict()
    now["options"] = tuple((name, value) for name, value in now["options"] if name in known)
    assert plain(now) == plain(of_now(saved.state))
    train(whole, uninterrupted, range(STEPS, 2 * STEPS))
    state = copy.deepcopy(saved.state)
    if older:  # states did not always say which options and groups they are of
        del state["options"], state["explicit"]
    with torch.no_grad():
        for name, numbers in saved.parameters.items():
            resumed.get_parameter(name).copy_(float64(numbers))
    surgery = gs.Surgery(parameters=FORMS[saved.form](resumed), **make)
    surgery.load_state_dict(state)
    train(resumed, surgery, range(STEPS, 2 * STEPS))
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(resumed.get_parameter(name), parameter, rtol=1e-10, atol=1e-12)
    assert plain(surgery.state_dict()) == plain(uninterrupted.state_dict())


def test_the_states_are_not_empty():
    """Otherwise a run that forgets everything would pass, too."""
    for saved in SAVED:
        resumed = Two()
        with torch.no_grad():
            for name, numbers in saved.parameters.items():
                resumed.get_parameter(name).copy_(float64(numbers))
        whole = copy.deepcopy(resumed)
        make = {"strategy": saved.strategy, **saved.settings}
        loaded, new = (
            gs.Surgery(parameters=FORMS[saved.form](m), **make) for m in (resumed, whole)
        )
        loaded.load_state_dict(saved.state)
        train(resumed, loaded, range(STEPS, 2 * STEPS))
        train(whole, new, range(STEPS, 2 * STEPS))
        assert not torch.allclose(resumed.trunk, whole.trunk, rtol=1e-6), saved.strategy
