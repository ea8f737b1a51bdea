"""Sharded training with fully_shard (FSDP2): parameters and `.grad` stay in shards.

`torchrun --nproc-per-node 2 examples/sharded.py` runs it on two ranks, over nccl where each has a
GPU and over gloo otherwise. Data and model are the task "multimnist".
"""

import os
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch.distributed.fsdp import fully_shard

import gradsurgery as gs
from gradsurgery.tasks import get_task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def started() -> torch.device:
    """Join the ranks that torchrun started, and take a device."""
    rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if gpus >= int(os.environ["LOCAL_WORLD_SIZE"]):
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl")
        return torch.device("cuda", rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    return torch.device("cpu")


@app.command()
def main(
    strategy: Annotated[str, typer.Option(help="A strategy's name.")] = "mgda",
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train on MultiMNIST and print each task's test accuracy."""
    if "LOCAL_RANK" not in os.environ:
        raise typer.BadParameter(
            "start it with torchrun: torchrun --nproc-per-node 2 examples/sharded.py"
        )
    device = started()
    try:
        train(strategy, epochs, seed, device)
        dist.barrier()  # ranks leave together
    finally:
        dist.destroy_process_group()


def train(strategy: str, epochs: int, seed: int, device: torch.device) -> None:
    """The loop of one rank: its share of every batch, and its shard of every parameter."""
    rank, world = dist.get_rank(), dist.get_world_size()
    task = get_task("multimnist")
    problem = task.load()
    torch.manual_seed(seed)
    model = problem.model().to(device)
    images, labels = (tensor.to(device) for tensor in problem.train)
    order = torch.Generator().manual_seed(seed)  # the same on all ranks
    # [loop]
    for head in model.heads.values():
        fully_shard(head)
    fully_shard(model.trunk)
    fully_shard(model)
    surgery = gs.Surgery(strategy, model)  # finds the parameters' device mesh
    optimizer = problem.optimizer(model.parameters(), task.lr)
    for epoch in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(task.batch):
            rows = batch[rank::world]  # the last batch may be uneven
            losses = problem.losses(model, (images[rows], labels[rows]))
            optimizer.zero_grad()
            record = surgery.backward(losses, count=len(rows))
            optimizer.step()
        # [end of loop]
        if rank == 0:
            print(f"epoch {epoch + 1}; the last {record}")
    model.eval()
    with torch.no_grad():  # each rank gathers the layers, so that all of them evaluate
        test = tuple(tensor.to(device) for tensor in problem.test)
        accuracies = problem.metrics(model, test)
    if rank == 0:
        found = ", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items())
        print(f"{world} ranks; test accuracy: {found}")


if __name__ == "__main__":
    app()
