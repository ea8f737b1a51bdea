"""
Watching a run
==============

Is there a conflict, and what does the strategy make of it? A ``Recorder`` keeps what
the records of a run say: cosines, how often batches conflict beside a control, weights
and lengths.
"""

import matplotlib.pyplot as plt
import torch

import gradsurgery as gs
from gradsurgery.diagnostics import Recorder, plots
from gradsurgery.tasks import get_task

task = get_task("multimnist")
problem = task.load()
images, labels = (tensor[::4] for tensor in problem.train)
torch.manual_seed(0)
model = problem.model()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)


def losses_of_a_batch():
    """The losses of 64 other images at each call."""
    rows = torch.randint(len(images), (64,))
    return problem.losses(model, (images[rows], labels[rows]))


# %%
# ``recorder.backward(surgery, losses)`` stands where ``surgery.backward(losses)`` did.
# Every second step is kept. The control is the losses of a second batch: how often do
# two batches of *one* loss conflict? A conflict rate that is no higher than that is
# noise.

surgery, recorder = gs.Surgery("pcgrad", model), Recorder(model, every=2)
steps = 100
for _ in range(steps):
    optimizer.zero_grad()
    record = recorder.backward(surgery, losses_of_a_batch(), control=losses_of_a_batch)
    optimizer.step()
print(record)
print(recorder.rows()[-1])

# %%
# The two gradients are nearly orthogonal, and so they conflict in about half of the
# steps, by chance, while two batches of one loss do so seldom: the tasks share little,
# and fight over nothing. The numbers go on to pandas, CSV, TensorBoard or W&B:
# :doc:`/watching`. Before training, :func:`gradsurgery.diagnose` answers with
# intervals, for the weights as they are.

panels = plt.figure(figsize=(10, 6), layout="constrained").subplots(2, 2).ravel()
draw = (plots.cosine_band, plots.conflict_rate, plots.weights, plots.lengths)
for axes, panel in zip(panels, draw, strict=True):
    panel(recorder, "left+right", axes)
plt.show()
