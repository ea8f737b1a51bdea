"""Data-parallel training with DistributedDataParallel: every rank decides alike, in one line.

`torchrun --nproc-per-node 2 examples/data_parallel.py` runs it on two ranks, over nccl where each
has a GPU and over gloo otherwise. Data and model are the task "multimnist".
"""

import os
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch.nn.parallel import DistributedDataParallel

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
            "start it with torchrun: torchrun --nproc-per-node 2 examples/data_parallel.py"
        )
    device = started()
    try:
        train(strategy, epochs, seed, device)
        dist.barrier()  # ranks leave together
    finally:
        dist.destroy_process_group()


def train(strategy: str, epochs: int, seed: int, device: torch.device) -> None:
    """The loop of one rank: its share of every batch, and the same step as all others."""
    rank, world = dist.get_rank(), dist.get_world_size()
    task = get_task("multimnist")
    problem = task.load()
    torch.manual_seed(seed)
    model = problem.model().to(device)
    images, labels = (tensor.to(device) for tensor in problem.train)
    order = torch.Generator().manual_seed(seed)  # the same on all ranks
    # [loop]
    ddp = DistributedDataParallel(model)
    surgery = gs.Surgery(strategy, ddp)  # finds DDP's process group
    optimizer = problem.optimizer(ddp.parameters(), task.lr)
    for epoch in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(task.batch):
            rows = batch[rank::world]  # the last batch may be uneven
            losses = problem.losses(ddp, (images[rows], labels[rows]))
            optimizer.zero_grad()
            record = surgery.backward(losses, count=len(rows))
            optimizer.step()
        # [end of loop]
        if rank == 0:
            print(f"epoch {epoch + 1}; the last {record}")
    first = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    same = first.clone()
    dist.broadcast(same, 0)
    if not torch.equal(first, same):
        raise SystemExit(f"rank {rank} has other parameters than rank 0")
    if rank == 0:
        model.eval()
        with torch.no_grad():
            test = tuple(tensor.to(device) for tensor in problem.test)
            accuracies = problem.metrics(model, test)
        found = ", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items())
        print(f"{world} ranks with the same parameters; test accuracy: {found}")


if __name__ == "__main__":
    app()
