"""Ctrl-C at any moment."""

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

import gradsurgery as gs


class Storm:
    """Sends SIGINT to this process at random moments while the block runs; the block sees
    KeyboardInterrupt.
    """

    def __init__(self, seed, longest):
        generator = torch.Generator().manual_seed(seed)
        self.pauses = (longest * torch.rand(10_000, generator=generator)).tolist()
        self.on = self.over = False  # no Event: its lock could be interrupted while it is held

    def __enter__(self):
        self.handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.thread = threading.Thread(target=self._send)
        self.thread.start()
        return self

    def _send(self):
        for pause in self.pauses:
            while not self.on and not self.over:
                time.sleep(0.0002)
            if self.over:
                return
            time.sleep(pause)
            if self.on:
                os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *exception):
        self.on, self.over = False, True
        self.thread.join()
        signal.signal(signal.SIGINT, self.handler)

    def run(self, call):
        """Whether the call ended without an interrupt."""
        ended = False
        try:
            self.on = True
            call()
            ended = True
            self.on = False
        except KeyboardInterrupt:
            pass
        while True:  # what was sent late arrives here
            try:
                self.on = False
                time.sleep(0.001)
                return ended
            except KeyboardInterrupt:
                continue


class Wide(nn.Module):
    def __init__(self, rows=60):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ParameterList(
            torch.randn(rows, 400, dtype=torch.float64) for _ in range(12)
        )

    def losses(self):
        return {
            "a": sum((p * p).sum() for p in self.parts),
            "b": sum((p - 1).pow(2).sum() for p in self.parts),
        }


@pytest.mark.parametrize("strategy", ["moco", "upgrad"])
def test_a_step_that_ctrl_c_interrupts_stands_whole_or_not_at_all(strategy):
    model = Wide()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(model.losses())
    direction_of = {}  # step -> what it adds: the parameters do not change, but moco's state does
    reference = gs.Surgery(strategy, model)
    for step in range(60):
        model.zero_grad()
        reference.backward(model.losses())
        direction_of[step] = [p.grad.clone() for p in model.parts]
        if step and strategy == "upgrad":
            break
    model.zero_grad()
    interrupted = stood = 0
    start = time.perf_counter()
    with Storm(0, 0.006) as storm:
        for attempt in range(300):
            if time.perf_counter() - start > 3 or surgery.state_dict()["step"] >= 59:
                break
            for i, p in enumerate(model.parts):  # some have a .grad already, some have none
                p.grad = torch.zeros_like(p) if (i + attempt) % 2 else None
            step = surgery.state_dict()["step"]
            ended = storm.run(lambda: surgery.backward(model.losses()))
            after = surgery.state_dict()["step"]
            assert after - step in (0, 1)
            interrupted += not ended
            stood += not ended and after == step + 1
            expected = direction_of[step if strategy == "moco" else 0]
            for i, p in enumerate(model.parts):
                if after == step:
                    assert p.grad is None or not p.grad.any()
                    assert (p.grad is None) == ((i + attempt) % 2 == 0)
                else:
                    assert torch.equal(p.grad, expected[i])
    assert interrupted > 10


def test_a_micro_batch_that_ctrl_c_interrupts_is_in_the_sum_or_not():
    model = Wide(rows=20)
    interrupted = 0
    start = time.perf_counter()
    with Storm(1, 0.004) as storm:
        for _ in range(100):
            if time.perf_counter() - start > 2:
                break
            surgery = gs.Surgery("sum", model, method="gradients")
            tried, ended = 6, 0
            for _ in range(tried):
                ended += storm.run(lambda surgery=surgery: surgery.accumulate(model.losses()))
            interrupted += tried - ended
            if surgery._gathered is None:
                assert ended == 0
                continue
            model.zero_grad()
            record = surgery.combine()
            count = (
                record.losses["b"] / model.losses()["b"].item()
            )  # how many micro-batches the losses remember
            assert abs(count - round(count)) < 1e-9
            assert ended <= round(count) <= tried
            for p in model.parts:
                assert torch.allclose(p.grad, round(count) * (4 * p - 2), rtol=1e-12)
    assert interrupted > 10
