"""One rank of several on which something differs or goes wrong, or the joined batch alone."""

import torch
import torch.distributed as dist

import gradsurgery as gs
from tests.support.joined import EXAMPLES, Tasks
from tests.support.ranks import launch, on_ranks
from tests.support.shipped import plain

WORLD, BAD = 3, 1  # the rank on which it differs
ALL = list(range(EXAMPLES))
REST = [row for row in ALL if row % WORLD != BAD]  # of the other ranks


class Run:
    """A model whose `.grad` is not empty, and a Surgery after one step.

    Args:
        rank: which rank this is; None has the joined batch.
        strategy: of the Surgery.
        **settings: of the Surgery.
    """

    def __init__(self, rank=None, strategy="mgda", **settings):
        self.alone, self.rank, self.bad = rank is None, rank, rank == BAD
        self.rows = ALL if self.alone else ALL[rank::WORLD]
        self.model = Tasks()
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.made = []
        self.surgery = self.make(strategy, **settings)
        self.surgery.backward(self.losses())

    def make(self, strategy="mgda", parameters=None, **settings):
        """One more Surgery; its state has to stay as it is, too."""
        group = None if self.alone else dist.group.WORLD
        given = self.model if parameters is None else parameters
        self.made.append(gs.Surgery(strategy, given, process_group=group, **settings))
        return self.made[-1]

    def losses(self, step=0):
        return self.model.losses(step, self.rows)

    def either(self, common, odd):
        """The second on the bad rank."""
        return odd if self.bad else common

    def seen(self):
        states = [plain(surgery.state_dict()) for surgery in self.made]
        return [p.grad.clone() for p in self.model.parameters()], states

    def ends(self, call):
        """What a call raises, whether it changed anything, and what the next good step gives."""
        count = len(self.made)
        before, said, given = self.seen(), ("", ""), None
        try:
            given = call(self)
        except BaseException as error:
            said = type(error).__name__, str(error)
        grads, states = self.seen()
        new = [state["step"] for state in states[count:]]
        same = all(map(torch.equal, grads, before[0])) and states[:count] == before[1]
        self.surgery.backward(self.losses(1))
        after = torch.cat([p.grad.reshape(-1) for p in self.model.parameters()])
        return said, same and not any(new), given, after


def on_rank(rank, cases, strategy, settings):
    return [Run(rank, strategy, **settings).ends(case) for case in cases]


def ended(cases, strategy="mgda", timeout=10, **settings):
    """Per case what `Run.ends` gives on each rank; the step after it is as one process's."""
    ends = launch(WORLD, on_rank, cases, strategy, settings, timeout=timeout, limit=60)
    for rank, end in enumerate(ends):
        assert end.error is None, (rank, end.error, end.said, end.trace)
    *_, expected = Run(None, strategy, **settings).ends(lambda run: None)
    found = {case: [end.value[i] for end in ends] for i, case in enumerate(cases)}
    for case, own in found.items():
        for rank, (said, same, _, after) in enumerate(own):
            assert same, (case, rank, said)
            assert torch.equal(after, own[0][3]), (case, rank)
            torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6, msg=str(case))
    return found


class Fresh(Run):
    """Nothing made yet."""

    def __init__(self, rank=None):
        self.alone, self.rank, self.bad = rank is None, rank, rank == BAD
        self.rows, self.model, self.made = (ALL if rank is None else ALL[rank::WORLD]), Tasks(), []

    def without(self, name, step=0, forward=None):
        """Losses of which one is missing on the bad rank."""
        losses = self.model.losses(step, self.rows, forward)
        if self.alone:
            losses[name] = self.model.losses(step, REST, forward)[name]
        elif self.bad:
            del losses[name]
        return losses

    def found(self):
        parts = [
            torch.zeros(0)
            if p.grad is None
            else torch.view_as_real(p.grad)
            if p.is_complex()
            else p.grad
            for p in self.model.parameters()
        ]
        return torch.cat([part.double().reshape(-1) for part in parts])


def used(use, rank=None):
    run = Fresh(rank)
    more = use(run)
    return run.found(), more


def use_on(rank, uses):
    return [used(use, rank) for use in uses]


def compared(uses):
    """Each use leaves on every rank what it leaves in one process, and gives back the same."""
    ranks = on_ranks(WORLD, use_on, uses, limit=60, timeout=10)
    for i, use in enumerate(uses):
        found, more = used(use)
        for own in ranks:
            assert torch.equal(own[i][0].nan_to_num(), ranks[0][i][0].nan_to_num()), use
            torch.testing.assert_close(own[i][0], found, rtol=1e-5, atol=1e-6, equal_nan=True)
            assert own[i][1] == more, use
