"""Forget versus retain with LoRA, on a small language model.

It is to lose what it knows of some people and keep what it knows of all others. A Llama of two
layers learns three facts about each of 64 people, all made on the spot. Then only LoRA's parameters
are trained, on two objectives that conflict. `forget` is the negative preference loss (NPO) on the
answers about eight people, and `retain` the usual loss on the others. The plain sum is compared
with gradient surgeries. With the extra `peft` installed:

    python examples/peft_forget_retain.py
    python examples/peft_forget_retain.py --strategy sum --strategy 'cagrad(c=0.4)' --no-protect

The columns are both losses on all people, right answers, steps in which the gradients were in
conflict (and their mean cosine), and steps that raised retain's loss on the same rows. That no
direction conflicts with `retain` is promised to first order: after a finite step its loss may still
have risen. Where `retain` is learnt, its gradient is nearly zero, which for `mgda` is a stationary
point: it stops before anything is forgotten.
"""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM

import gradsurgery as gs

NAMES, VALUES = 8, 12  # first names and surnames; answers to each question
QUESTIONS = ("city", "job", "food")
DEFAULT = ["sum", "pcgrad", "mgda"]
BEGIN = 0
FIRST, LAST, ASK, ANSWER = 1, 1 + NAMES, 1 + 2 * NAMES, 1 + 2 * NAMES + len(QUESTIONS)
VOCABULARY = ANSWER + VALUES * len(QUESTIONS)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def make_people(seed: int) -> Tensor:
    """Token ids [64, 9]: begin, first name, surname, then question and answer three times.

    People of one name share tokens, not facts.
    """
    draw = torch.Generator().manual_seed(seed)
    people = []
    for person in torch.randperm(NAMES * NAMES, generator=draw).tolist():
        row = [BEGIN, FIRST + person // NAMES, LAST + person % NAMES]
        for question in range(len(QUESTIONS)):
            row += [
                ASK + question,
                ANSWER + VALUES * question + int(torch.randint(VALUES, (), generator=draw)),
            ]
        people.append(row)
    return torch.tensor(people)


def log_likelihood(model: torch.nn.Module, rows: Tensor) -> Tensor:
    """log p [n, 3] of each answer, given the person and what comes before."""
    logits = model(input_ids=rows).logits[:, 3:-1:2]  # at each question
    answers = rows[:, 4::2]
    missing = cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
    return -missing.view(answers.shape)


def learn(rows: Tensor, seed: int, steps: int) -> LlamaForCausalLM:
    """The model that knows all people."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 16}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (-log_likelihood(model, rows).mean()).backward()
        optimizer.step()
    return model


# [losses]
def losses(
    model: PeftModel, forget: Tensor, reference: Tensor, retain: Tensor, beta: float = 0.5
) -> dict[str, Tensor]:
    """The two objectives.

    forget = −(2/β) mean log σ(−β log(p / p_ref)), bounded below by 0 (Zhang et al. 2024,
    arXiv:2404.05868, equation 3); retain = −mean log p. `reference` is log p_ref [n, 3] of the
    answers to be forgotten, before anything was forgotten.
    """
    ratio = (log_likelihood(model, forget) - reference).sum(1)
    return {
        "forget": -2 / beta * logsigmoid(-beta * ratio).mean(),
        "retain": -log_likelihood(model, retain).mean(),
    }


# [end]


@dataclass(frozen=True)
class Outcome:
    """Both losses on all people, and right answers in percent."""

    forget: float
    forget_right: float
    retain: float
    retain_right: float


# the outcome; the shares of steps in conflict, and of those after which retain rose; mean cosine
Run = tuple[Outcome, float, float, float]


@torch.no_grad()
def examine(model: torch.nn.Module, forget: Tensor, reference: Tensor, retain: Tensor) -> Outcome:
    """What is known of both groups."""
    found = losses(model, forget, reference, retain)
    right = []
    for rows in (forget, retain):
        guesses = model(input_ids=rows).logits[:, 3:-1:2].argmax(-1)
        right.append(100 * (guesses == rows[:, 4::2]).float().mean().item())
    return Outcome(found["forget"].item(), right[0], found["retain"].item(), right[1])


# [unlearn]
def unlearn(
    base: LlamaForCausalLM,
    forget: Tensor,
    retain: Tensor,
    surgery_options: dict,
    steps: int,
    lr: float,
    seed: int,
) -> Run:
    """LoRA beside a copy of the base, trained on both objectives.

    Returns the outcome, two shares of steps in percent, and the mean cosine. The shares are those
    of steps in conflict, and of steps after which retain's loss on the same rows had risen.
    """
    torch.manual_seed(seed)
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        copy.deepcopy(base), LoraConfig(r=8, lora_alpha=16, target_modules=layers)
    )
    with torch.no_grad(), model.disable_adapter():
        reference = log_likelihood(model, forget)
    # frozen parameters stay out of it
    surgery = gs.Surgery(parameters=model, seed=seed, **surgery_options)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    conflicts = risen = 0
    cosine = 0.0
    for _ in range(steps):
        some = retain[torch.randint(len(retain), (16,))]
        found = losses(model, forget, reference, some)
        # for the table: `sum` itself measures no gradient
        group = gs.inspect(found, model)["forget+retain"]
        conflicts += bool(group.conflicts)
        cosine += group.mean_cosine / steps
        optimizer.zero_grad()
        surgery.backward(found)
        optimizer.step()
        # [end of the step]
        with torch.no_grad():
            risen += bool(losses(model, forget, reference, some)["retain"] > found["retain"])
    return (
        examine(model, forget, reference, retain),
        100 * conflicts / steps,
        100 * risen / steps,
        cosine,
    )


@app.command()
def main(
    strategy: Annotated[
        list[str],
        typer.Option(
            help="A strategy's name, options in brackets as in 'cagrad(c=0.4)'; may be repeated."
        ),
    ] = DEFAULT,
    protect: Annotated[bool, typer.Option(help="Also the sum with protect='retain'.")] = True,
    steps: Annotated[int, typer.Option(min=1, help="Steps of unlearning.")] = 150,
    pretraining: Annotated[
        int, typer.Option(min=1, help="Steps in which the model learns all people.")
    ] = 150,
    lr: Annotated[float, typer.Option(help="The learning rate of unlearning.")] = 0.1,
    seeds: Annotated[int, typer.Option(min=1, help="How many models, each of other people.")] = 2,
) -> None:
    """Unlearn eight people of 64 with LoRA and print what is left of both groups."""
    runs = {name: {"strategy": name} for name in strategy}
    if protect:
        runs["sum, protect='retain'"] = {"strategy": "sum", "protect": "retain"}
    found: dict[str, list[Run]] = {name: [] for name in ("before", *runs)}
    for seed in range(seeds):
        people = make_people(seed)
        forget, retain = people[:8], people[8:]
        base = learn(people, seed, pretraining)
        with torch.no_grad():
            found["before"].append(
                (examine(base, forget, log_likelihood(base, forget), retain), *3 * (float("nan"),))
            )
        for name, options in runs.items():
            found[name].append(unlearn(base, forget, retain, options, steps, lr, seed))
    show(found, f"8 people to forget, 56 to retain; {steps} steps of LoRA with SGD; {seeds} seeds")


def show(found: dict[str, list[Run]], title: str) -> None:
    """A row for each run; a number for each seed."""
    table = Table(title=title)
    for column in (
        "",
        "forget: NPO",
        "forget: right",
        "retain: loss",
        "retain: right",
        "in conflict (cosine)",
        "retain rose",
    ):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, seeds in found.items():
        cells = [
            " ".join(f"{getattr(outcome, loss):.3f}" for outcome, *_ in seeds)
            for loss in ("forget", "retain")
        ]
        right = [
            " ".join(f"{getattr(outcome, share):.0f}" for outcome, *_ in seeds) + " %"
            for share in ("forget_right", "retain_right")
        ]
        shares = (
            [" ".join(f"{outcome[i]:.0f}" for outcome in seeds) + " %" for i in (1, 2)]
            if name != "before"
            else []
        )
        if shares:
            shares[0] += " (" + " ".join(f"{cosine:.2f}" for *_, cosine in seeds) + ")"
        table.add_row(name, cells[0], right[0], cells[1], right[1], *shares)
    Console().print(table)


if __name__ == "__main__":
    app()
