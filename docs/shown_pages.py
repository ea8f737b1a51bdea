"""Pages of the stored runs, and their part of the gallery: of those that are in docs/shown."""

from pathlib import Path

from prose import paragraph

PAGES = {  # name -> title, script, what the picture has, what is to be seen
    "data_parallel": (
        "Data parallel",
        "data_parallel.py",
        "Test accuracies of one rank and of two.",
        "Two ranks with half of every batch each decide as one: the surgery finds the process "
        "group of ``DistributedDataParallel``, and all ranks end with the same parameters. "
        ":doc:`/processes` says what is exchanged.",
    ),
    "lightning": (
        "Lightning",
        "lightning_multitask.py",
        "Losses, weights and cosines over the steps.",
        "Manual optimization in a ``LightningModule``, with ``surgery.backward`` in place of "
        "``self.manual_backward``. The strategy's state goes into the checkpoint. "
        ":doc:`/frameworks` has precisions, resuming and several processes.",
    ),
    "transformers": (
        "Hugging Face Trainer",
        "transformers_trainer.py",
        "Losses, weights and cosines over the steps.",
        "A subclass of ``Trainer`` with the surgery in place of ``self.accelerator.backward``. A "
        "small BERT learns masked words and pairs of sentences, with gradient accumulation. "
        ":doc:`/frameworks` says how losses are scaled then.",
    ),
    "peft": (
        "Forget and retain with LoRA",
        "peft_forget_retain.py",
        "Right answers on what is to be forgotten and on what is to be kept.",
        "A small language model is to forget what it knows of some people, with LoRA's parameters "
        "alone; what is frozen stays out of the surgery with nothing to configure. None of the "
        "strategies wins: :doc:`/frameworks` says why.",
    ),
}
OPENS = '    <div class="sphx-glr-thumbnails">'
RAW = [".. raw:: html", ""]


def write_shown(docs: Path, gallery: Path) -> list[str]:
    """Write `shown/NAME.rst` for each stored run, and the gallery's header of them.

    Returns their names; without any the gallery has no such part.
    """
    kept = [name for name in PAGES if (docs / "shown" / f"{name}.txt").exists()]
    header = gallery / "stored" / "GALLERY_HEADER.rst"
    if not kept:
        header.unlink(missing_ok=True)
        return []
    for name in kept:
        _write(docs / "shown" / f"{name}.rst", _page(name))
    header.parent.mkdir(exist_ok=True)
    _write(header, _header(kept))
    return kept


def _page(name: str) -> str:
    title, script, picture, said = PAGES[name]
    lines = [title, "=" * len(title), "", *paragraph(said), ""]
    lines += paragraph(
        f"This run is older than this page: ``python docs/shown.py {name}`` stored it, on the day",
        "and with the versions that the last line of its output says.",
    )
    lines += ["", f".. image:: {name}.png", f"   :alt: {picture}", ""]
    lines += [f".. literalinclude:: {name}.txt", "   :language: none", ""]
    lines += [f"The script, ``examples/{script}``:", ""]
    return "\n".join([*lines, f".. literalinclude:: ../../examples/{script}", ""])


def _header(names: list[str]) -> str:
    title = "Frameworks and several processes"
    lines = [title, "-" * len(title), ""]
    lines += paragraph(
        "These need packages or ranks of their own. What they print and draw is stored, with the",
        "day and the versions.",
    )
    lines += ["", *RAW, OPENS, ""]
    for name in names:
        called = PAGES[name][0]
        lines += [*RAW, f'    <div class="sphx-glr-thumbcontainer" tooltip="{called}">', ""]
        lines += [".. only:: html", "", f"  .. image:: /shown/{name}.png", f"    :alt: {called}"]
        lines += ["", f"  :doc:`/shown/{name}`", ""]
        lines += [*RAW, f'      <div class="sphx-glr-thumbnail-title">{called}</div>', "    </div>"]
        lines.append("")
    lines += [*RAW, "    </div>", "", ".. toctree::", "   :hidden:", ""]
    return "\n".join([*lines, *(f"   /shown/{name}" for name in names), ""])


def _write(path: Path, text: str) -> None:
    """Write what changed: only that is built again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
