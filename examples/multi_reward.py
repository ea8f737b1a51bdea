"""Several rewards per sampled sequence: their objectives from one backward pass.

A small decoder answers with three digits in reverse. It was taught by careless answers; then LoRA
adapters are trained by policy gradients on three rewards that are in conflict: that the digits are
right, that the answer is short, and that it stands in brackets. Each reward's objective is a
mixture of the per-example losses -log p(answer) by its advantages. Nothing is downloaded:

    python examples/multi_reward.py
"""

import copy
import statistics
import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import gradsurgery as gs

OPEN, CLOSE, DOT, END, GO, VOCABULARY = 10, 11, 12, 13, 14, 15  # after the ten digits
DIGITS, LONGEST = 3, 8  # of a question; tokens of an answer
REWARDS = ("correct", "short", "format")
BATCH, WIDTH, HEADS = 64, 64, 4
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class LoRA(nn.Module):
    """A frozen linear layer plus a product of two thin ones, the second of which starts at zero."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The base's output and the adapter's."""
        return self.base(x) + 2 * self.up(self.down(x))


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed: nn.Module = nn.Linear(WIDTH, 3 * WIDTH)
        self.out: nn.Module = nn.Linear(WIDTH, WIDTH)
        self.forth: nn.Module = nn.Linear(WIDTH, 2 * WIDTH)
        self.back: nn.Module = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states [B, T, WIDTH] to such."""
        parts = self.mixed(self.before(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(
            scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
        )
        return x + self.back(torch.relu(self.forth(self.between(x))))


class Decoder(nn.Module):
    """Two blocks over tokens and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(0.1 * torch.randn(DIGITS + 1 + LONGEST, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] to the logits of the next ones [B, T, VOCABULARY]."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return self.head(self.blocks(x))


def adapted(base: Decoder) -> Decoder:
    """A copy of which only LoRA's parameters are trained."""
    model = copy.deepcopy(base).requires_grad_(False)
    for block in model.blocks:
        for name in ("mixed", "out", "forth", "back"):
            setattr(block, name, LoRA(getattr(block, name)))
    return model


def questions(count: int) -> Tensor:
    """Three random digits and GO [count, 4]."""
    return torch.cat([torch.randint(10, (count, DIGITS)), torch.full((count, 1), GO)], 1)


def careless(asked: Tensor) -> Tensor:
    """Answers to learn from [B, LONGEST]: of the digits, brackets and dots each is often amiss."""
    answers = torch.full((len(asked), LONGEST), END)
    for i, digits in enumerate(asked[:, :DIGITS].flip(1).tolist()):
        chance = torch.rand(4 + DIGITS).tolist()
        kept = [d if c < 0.7 else int(10 * c) for d, c in zip(digits, chance[4:], strict=True)]
        kept = kept[: 1 + int(6 * chance[0])]  # some break off
        row = [OPEN] * (chance[1] < 0.4) + kept + [CLOSE] * (chance[2] < 0.4)
        row = [DOT] * int(3 * chance[3]) + row
        answers[i, : len(row)] = torch.tensor(row[:LONGEST])
    return answers


def taught(seed: int, steps: int) -> Decoder:
    """A decoder that learnt from careless answers."""
    torch.manual_seed(seed)
    model = Decoder()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        asked = questions(BATCH)
        optimizer.zero_grad()
        per_sequence(model, asked, careless(asked)).mean().backward()
        optimizer.step()
    return model


@torch.no_grad()
def sampled(model: Decoder, asked: Tensor) -> Tensor:
    """Answers [B, LONGEST]; after the first END all tokens are END."""
    tokens = asked
    for _ in range(LONGEST):
        following = torch.multinomial(model(tokens)[:, -1].softmax(1), 1)
        ended = tokens[:, -1:] == END
        tokens = torch.cat([tokens, following.where(~ended, END)], 1)
    return tokens[:, DIGITS + 1 :]


def per_sequence(model: Decoder, asked: Tensor, answers: Tensor) -> Tensor:
    """-log p of each answer up to its first END [B]."""
    logits = model(torch.cat([asked, answers[:, :-1]], 1))[:, DIGITS:]
    losses = cross_entropy(logits.transpose(1, 2), answers, reduction="none")
    before = (answers == END).cumsum(1) - (answers == END).long()
    return (losses * (before == 0)).sum(1)


def rewards(asked: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Each reward of each answer [B], from 0 to 1."""
    found = {name: torch.zeros(len(asked)) for name in REWARDS}
    for i, (row, digits) in enumerate(
        zip(answers.tolist(), asked[:, :DIGITS].flip(1).tolist(), strict=True)
    ):
        row = row[: row.index(END)] if END in row else row
        said = [token for token in row if token < 10]
        right = sum(a == b for a, b in zip(said, digits, strict=False))
        found["correct"][i] = right / max(len(said), DIGITS)
        found["short"][i] = 1 - len(row) / LONGEST
        found["format"][i] = ((row[:1] == [OPEN]) + (row[-1:] == [CLOSE])) / 2
    return found


# [step]
def objectives(losses: Tensor, found: dict[str, Tensor]) -> gs.PerExample:
    """One objective per reward: Σ_b A_b·(-log p_b)/B with the reward's own advantages A."""
    advantages = {
        name: (reward - reward.mean()) / (reward.std() + 1e-3) for name, reward in found.items()
    }
    return gs.PerExample(losses, {name: a / len(a) for name, a in advantages.items()})


def step(
    model: Decoder, surgery: gs.Surgery, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Sample, reward, and one policy-gradient step from one backward pass."""
    asked = questions(BATCH)
    answers = sampled(model, asked)
    found = rewards(asked, answers)
    losses = per_sequence(model, asked, answers)
    optimizer.zero_grad()
    surgery.backward(objectives(losses, found))
    optimizer.step()
    return found


# [end of step]


def train(base: Decoder, strategy: str, rate: float, steps: int, seed: int) -> list[list[float]]:
    """The mean of each reward at the start, after each quarter, and at the end [5][3]."""
    torch.manual_seed(seed)
    model = adapted(base)
    trained = [p for p in model.parameters() if p.requires_grad]
    # a reward that is the same for the whole batch has no gradient, and no part in the decision
    surgery = gs.Surgery(strategy, model, seed=seed, zero="absent")
    optimizer = torch.optim.Adam(trained, rate)
    found = [measured(model)]
    for number in range(steps):
        step(model, surgery, optimizer)
        if (number + 1) * 4 // steps > number * 4 // steps:
            found.append(measured(model))
    return found


def measured(model: Decoder) -> list[float]:
    """The mean of each reward over 512 answers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        asked = questions(512)
        return [float(r.mean()) for r in rewards(asked, sampled(model, asked)).values()]


def costs(base: Decoder, strategy: str, repeats: int) -> dict[str, float]:
    """CPU milliseconds of forward and backward on one batch: plain, by mixtures, a pass each."""
    torch.manual_seed(0)
    model = adapted(base)
    asked = questions(BATCH)
    answers = sampled(model, asked)
    found = rewards(asked, answers)
    surgeries = {name: gs.Surgery(strategy, model) for name in ("PerExample", "a pass each")}
    times: dict[str, list[float]] = {"plain": [], **{name: [] for name in surgeries}}
    for repeat in range(repeats + 3):  # the first of all check and trace
        for name, kept in times.items():
            model.zero_grad()
            began = time.process_time()
            losses = per_sequence(model, asked, answers)
            given = objectives(losses, found)
            if name == "PerExample":
                surgeries[name].backward(given)
            else:
                table = torch.as_tensor(given.weights, dtype=losses.dtype)
                scalars = table @ losses
                if name == "plain":
                    scalars.sum().backward()
                else:
                    surgeries[name].backward(dict(zip(REWARDS, scalars, strict=True)))
            if repeat >= 3:
                kept.append(1000 * (time.process_time() - began))
    return {name: statistics.median(kept) for name, kept in times.items()}


@app.command()
def main(
    strategy: Annotated[list[str] | None, typer.Option(help="Beside the sum.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=4)] = 120,
    rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    quick: Annotated[bool, typer.Option(help="One seed and eight steps.")] = False,
) -> None:
    """Train by the sum and by strategies; print each reward over training and a step's cost."""
    teaching, repeats = (20, 2) if quick else (400, 30)
    seeds, steps = (1, 8) if quick else (seeds, steps)
    chosen = strategy or ["pcgrad"]
    console = Console()
    bases = [taught(seed, teaching) for seed in range(seeds)]
    table = Table("strategy", "reward", "start", "¼", "½", "¾", "end, mean ± sd", "end, each seed")
    for name in ["sum", *chosen]:
        runs = torch.tensor([train(b, name, rate, steps, s) for s, b in enumerate(bases)])
        for i, reward in enumerate(REWARDS):
            means, ends = runs[:, :, i].mean(0).tolist(), runs[:, -1, i]
            spread = float(ends.std()) if seeds > 1 else 0.0
            early = (f"{value:.2f}" for value in means[:-1])
            each = " ".join(f"{value:.2f}" for value in ends.tolist())
            table.add_row(
                "" if i else name, reward, *early, f"{means[-1]:.2f} ± {spread:.2f}", each
            )
    console.print(table)
    cost = costs(bases[0], chosen[0], repeats)
    console.print(
        f"one step of {chosen[0]}, forward and backward, CPU ms: "
        + ", ".join(f"{name} {ms:.1f} ({ms / cost['plain']:.2f}x)" for name, ms in cost.items())
    )


if __name__ == "__main__":
    app()
