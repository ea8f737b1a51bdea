"""A small transformer with three losses: 300 steps in float16, with overflows; prints the outcome.

`python -m tests.support.soak STRATEGY`, in a process of its own, so that the peak of its memory is
its own.
"""

import json
import random
import resource
import sys

import torch
from torch import nn

import gradsurgery as gs
from tests.support.shipped import ready

STEPS = 300


class Transformer(nn.Module):
    """Two layers, and heads for the next token, the parity of the sum, and the first token."""

    def __init__(self, tokens=12, width=32):
        super().__init__()
        self.embed, self.place = (
            nn.Embedding(tokens, width),
            nn.Parameter(0.1 * torch.randn(16, width)),
        )
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.next, self.parity, self.first = (
            nn.Linear(width, tokens),
            nn.Linear(width, 2),
            nn.Linear(width, tokens),
        )

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        hidden = self.body(self.embed(x) + self.place, mask=mask, is_causal=True)
        return self.next(hidden[:, :-1]), self.parity(hidden[:, -1]), self.first(hidden[:, -1])


def batch(generator):
    """Sequences that count up by one or two from a random start."""
    start, by = (
        torch.randint(12, (16, 1), generator=generator),
        torch.randint(1, 3, (16, 1), generator=generator),
    )
    return (start + by * torch.arange(16)) % 12, by[:, 0] - 1


def main(name):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    generator, rnd = torch.Generator().manual_seed(0), random.Random(0)
    model = Transformer()
    surgery = gs.Surgery(ready(name, "next"), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=20)
    seen, peaks, skipped, injected, scales = [], {}, 0, 0, []
    for step in range(1, STEPS + 1):
        x, by = batch(generator)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            following, parity, first = model(x)
            entropy = nn.functional.cross_entropy
            losses = {
                "next": entropy(following.flatten(0, 1), x[:, 1:].flatten()),
                "parity": entropy(parity, by),
                "first": entropy(first, x[:, 0]),
            }
        if bad := rnd.random() < 0.05:
            spoiled = rnd.choice(sorted(losses))
            losses[spoiled] = losses[spoiled] * rnd.choice([torch.inf, -torch.inf, torch.nan])
        record = surgery.backward(losses, scaler=scaler)
        injected += bad
        assert record.overflow or not bad
        skipped += record.overflow
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters()), step
        if not bad:
            seen.append(sum(record.losses.values()))
        if step in (50, STEPS):
            peaks[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mean = lambda part: sum(part) / len(part)  # noqa: E731
    found = {
        "first": mean(seen[:20]),
        "last": mean(seen[-20:]),
        "peak": peaks,
        "skipped": skipped,
        "injected": injected,
        "steps": record.step + 1,
    }
    print(json.dumps({**found, "scales": [min(scales), max(scales)]}))


if __name__ == "__main__":
    main(sys.argv[1])
