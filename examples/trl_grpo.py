"""TRL's GRPO trainer with an objective per reward function: all of them from one backward pass.

A subclass of GRPOTrainer keeps what each reward function gave [B, n] and hands it to the surgery as
mixtures of the completions' losses. Model and tokenizer are made on the spot. Written for TRL
1.16.0, of which it takes three private functions:

    python -m pip install -c constraints.txt trl
    python examples/trl_grpo.py
"""

from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import gradsurgery as gs

WORDS = ["<pad>", "<end>", "<unk>", *(f"w{i}" for i in range(13))]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


# [trainer]
class RewardsTrainer(GRPOTrainer):
    """GRPOTrainer with an objective per reward function.

    Each has the gradient of `loss_type="grpo"` with its own advantages. At the first use of a
    sample the policy's ratio is 1, so that clipping does nothing and the loss is linear in the
    advantages: a mixture.
    """

    def __init__(self, *args: Any, surgery: gs.Surgery, **options: Any) -> None:
        super().__init__(*args, **options)
        settings = self.args
        if (self.num_iterations, self.beta, self.loss_type) != (1, 0.0, "grpo"):
            raise ValueError("this example is for num_iterations=1, beta=0, loss_type='grpo'")
        if settings.steps_per_generation > settings.gradient_accumulation_steps:
            raise ValueError("samples of an earlier policy: lower steps_per_generation")
        self.surgery = surgery

    def _calculate_rewards(self, *args: Any) -> Tensor:
        self.rewards: Tensor = super()._calculate_rewards(*args)  # [B, n]
        return self.rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        groups = self.rewards.view(-1, self.num_generations, self.rewards.shape[1])
        centred = groups - groups.mean(1, keepdim=True)
        advantages = (centred / (groups.std(1, keepdim=True) + 1e-4)).flatten(0, 1)
        output["advantages_each"] = advantages.nan_to_num(0.0)  # shuffled and split with the rest
        return output

    def objectives(self, model: nn.Module, inputs: dict[str, Any]) -> gs.PerExample:
        """The completions' losses [B], and per reward the advantages as weights."""
        asked, answered = inputs["prompt_ids"], inputs["completion_ids"]
        mask = inputs["completion_mask"]
        logps, _, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([asked, answered], 1),
            torch.cat([inputs["prompt_mask"], mask], 1),
            answered.shape[1],
        )
        losses = -(logps * mask).sum(1) / mask.sum(1).clamp(min=1)
        weights = inputs["advantages_each"] / len(losses) / self.current_gradient_accumulation_steps
        return gs.PerExample(losses, dict(zip(self.reward_func_names, weights.T, strict=True)))

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As Trainer's, with the surgery in place of `self.accelerator.backward(loss)`."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            given = self.objectives(model, inputs)
        record = self.surgery.backward(given)
        self._step += 1
        return torch.tensor(sum(record.losses.values()), device=given.losses.device)


# [end]


def brief(completions: list[str], **_: Any) -> list[float]:
    """Fewer words are better."""
    return [-float(len(completion.split())) for completion in completions]


def varied(completions: list[str], **_: Any) -> list[float]:
    """More different words are better."""
    return [float(len(set(completion.split()))) for completion in completions]


def make_trainer(strategy: str, steps: int, folder: str) -> RewardsTrainer:
    """A small Llama over sixteen words."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    settings = GRPOConfig(
        folder, max_steps=steps, per_device_train_batch_size=16, num_generations=8, beta=0.0,
        loss_type="grpo", max_completion_length=8, learning_rate=3e-3, use_cpu=True,
        report_to="none", save_strategy="no", logging_steps=5, disable_tqdm=True,
        gradient_checkpointing=False, bf16=False,
    )  # fmt: skip
    prompts = [f"w{i} w{(i + 1) % 13}" for i in range(13)] * 8
    return RewardsTrainer(
        model,
        [brief, varied],
        settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        surgery=gs.Surgery(strategy, model),
    )


@app.command()
def main(
    strategy: Annotated[str, typer.Option(help="A strategy's name.")] = "mgda",
    steps: Annotated[int, typer.Option(min=1)] = 20,
    out: Annotated[str, typer.Option(help="A folder for Trainer.")] = "trl_runs",
) -> None:
    """Train, and print each reward as TRL logs it."""
    trainer = make_trainer(strategy, steps, out)
    trainer.train()
    for entry in trainer.state.log_history:
        found = {k: round(v, 3) for k, v in entry.items() if k.startswith("rewards/")}
        if found:
            print(entry["step"], found)


if __name__ == "__main__":
    app()
