"""What is kept of the graph after a step."""

import gc
import weakref

import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders


def test_nothing_of_the_graph_is_kept_after_a_step():
    def with_graph():
        return [o for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn is not None]

    others = with_graph()  # of tests that ran before in this process
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model, every=2)
    kept = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            big = x.new_zeros(1000)
            kept.append(weakref.ref(big))
            ctx.save_for_backward(big)
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            assert len(ctx.saved_tensors) == 1
            return gradient

    records = []
    for seed in range(3):
        losses = {name: Watched.apply(loss) for name, loss in model.losses(seed).items()}
        records.append(surgery.backward(losses))
        # what the last pass went through is freed with the call, as torch frees it; what only
        # earlier losses used, with the losses
        assert kept[-1]() is None
        del losses
        assert all(reference() is None for reference in kept)
    gc.collect()
    assert not [o for o in with_graph() if not any(o is other for other in others)]
    assert len(records) == 3


def test_memory_is_freed_after_a_step():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model)
    activations = []
    model.audio[1].register_forward_hook(
        lambda module, inputs, output: activations.append(weakref.ref(output))
    )
    losses = model.losses()
    assert activations[0]() is not None
    record = surgery.backward(losses)
    del losses
    assert activations[0]() is None
    assert record["audio+fused"].gram.shape == (2, 2)
