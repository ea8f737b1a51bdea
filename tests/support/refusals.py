"""One rank of the test of several processes: what is refused there, and what is not."""

import warnings

import torch
import torch.distributed as dist
from torch import nn

import gradsurgery as gs


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.a(self.t(x))


def both(z):
    return {"a": z.sum(), "b": z.pow(2).sum()}


def losses(model):
    return both(model(torch.ones(2, 4)))


def refused(rank, world, store):
    """By attempt: what the InputError says, and nothing where there is none."""
    warnings.simplefilter("ignore")
    found = {}

    def said(what, call):
        try:
            call()
            found[what] = ""
        except gs.InputError as error:
            found[what] = str(error)[:70]

    dist.destroy_process_group()  # the harness has initialised one
    attempts(rank, world, store, said)
    return found


def attempts(rank, world, store, said):
    plain = Net()
    early = gs.Surgery("mgda", plain)
    early.backward(losses(plain))  # nothing is initialised yet
    later = Net()
    given_before, discovers = gs.Surgery("mgda", later), gs.Surgery("mgda")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    from torch.distributed._composable.replicate import replicate
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.nn.parallel import DistributedDataParallel

    ddp = DistributedDataParallel(Net())
    said("ddp", lambda: gs.Surgery("mgda", ddp))
    said("ddp inside", lambda: gs.Surgery("mgda", nn.Sequential(ddp)))
    said("ddp in a group", lambda: gs.Surgery("mgda", {"g": ddp}))
    said("ddp, one-shot", lambda: gs.backward(losses(ddp.module), ddp, "mgda"))
    fixed = DistributedDataParallel(Net(), static_graph=True)
    said("ddp, static graph", lambda: gs.Surgery("mgda", fixed))
    everyone = gs.Surgery("mgda", plain, process_group=dist.group.WORLD)
    said("plain, group", lambda: everyone.backward(losses(plain)))
    said("ddp, composable", lambda: gs.Surgery("mgda", replicate(Net())))
    said(
        "fsdp1",
        lambda: gs.Surgery("mgda", FullyShardedDataParallel(Net(), device_id=torch.device("cpu"))),
    )
    mesh = init_device_mesh("cpu", (world,))
    spread = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Replicate()]))
    said("dtensor", lambda: gs.Surgery("mgda", [spread]))
    said("fsdp2", lambda: gs.Surgery("mgda", fully_shard(Net(), mesh=mesh)))
    fully_shard(later, mesh=mesh)
    said("fsdp2 after the constructor", lambda: given_before.backward(losses(later)))
    said("fsdp2, no parameters", lambda: discovers.backward(losses(later)))
    said("wrong", lambda: gs.Surgery("mgda", plain, process_group="world"))
    said("ddp.module", lambda: gs.Surgery("mgda", ddp.module).backward(losses(ddp.module)))
    said("plain", lambda: gs.Surgery("mgda", plain).backward(losses(plain)))
    said("plain, made before", lambda: early.backward(losses(plain)))
    said("plain, accumulate", lambda: early.accumulate(losses(plain)))
    early.discard()
    said("plain, inspect", lambda: gs.inspect(losses(plain), plain))
    said("plain, list", lambda: gs.backward(losses(plain), list(plain.parameters()), "mgda"))
    said("plain, no parameters", lambda: gs.backward(losses(plain), None, "mgda"))
    said(
        "plain, None", lambda: gs.Surgery("mgda", plain, process_group=None).backward(losses(plain))
    )
    said("inspect, None", lambda: gs.inspect(losses(plain), plain, process_group=None))
    said("one-shot, None", lambda: gs.backward(losses(plain), plain, "mgda", process_group=None))
    said("ddp, None", lambda: gs.Surgery("mgda", ddp, process_group=None))
    dist.destroy_process_group()
