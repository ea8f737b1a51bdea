"""What a Recorder kept, in a file of numpy's, and back."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradsurgery.diagnostics.samples import Sample
from gradsurgery.errors import InputError
from gradsurgery.types import Array

FORMAT = "gradsurgery.diagnostics.Recorder 1"


def save(
    path: Path,
    state: Mapping[str, int],
    groups: Mapping[str, Sequence[Sample]],
    places: Mapping[str, Sequence[int]],
) -> None:
    """Write the samples: arrays per run of samples of one group that have the same objectives."""
    arrays: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for name, kept in groups.items():
        begin = 0
        for end in range(1, len(kept) + 1):
            if end < len(kept) and kept[end].objectives == kept[begin].objectives:
                continue
            run, n = kept[begin:end], len(kept[begin].objectives)
            stem = f"part{len(parts)}_"
            parts.append({"group": name, "objectives": kept[begin].objectives})
            arrays[stem + "step"] = np.array([s.step for s in run])
            arrays[stem + "place"] = np.array(places[name][begin:end])
            arrays[stem + "losses"] = np.array([s.losses for s in run])
            for field in ("length", "gap"):
                arrays[stem + field] = np.array([getattr(s, field) for s in run])
            for field, shape in (("gram", (n, n)), ("weights", (n,)), ("control", (n,))):
                values = [getattr(s, field) for s in run]
                arrays[stem + field] = np.array(
                    [np.zeros(shape) if x is None else x for x in values]
                )
                # None is apart from NaN, which a gradient that is not finite gives
                arrays[stem + "has_" + field] = np.array([x is not None for x in values])
            begin = end
    text = json.dumps({"format": FORMAT, **state, "groups": list(groups), "parts": parts})
    with path.open("wb") as file:  # numpy adds .npz to a path, and not to a file
        np.savez_compressed(file, meta=np.array(text), **arrays)


def load(path: Path) -> tuple[dict[str, int], dict[str, list[Sample]], dict[str, list[int]]]:
    """State, samples and their places by group.

    Raises:
        InputError: for a file that `save` did not write.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        state = json.loads(str(arrays["meta"]))
        if state["format"] != FORMAT:
            raise KeyError(state["format"])
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file that Recorder.save wrote ({error}).") from error
    groups: dict[str, list[Sample]] = {name: [] for name in state["groups"]}
    places: dict[str, list[int]] = {name: [] for name in state["groups"]}
    for number, part in enumerate(state["parts"]):
        stem, name = f"part{number}_", part["group"]
        gaps = arrays.get(stem + "gap", np.full(len(arrays[stem + "step"]), np.nan))
        places[name] += arrays[stem + "place"].tolist()

        def of(field: str, at: int, stem: str = stem) -> Array | None:
            known: bool = arrays[f"{stem}has_{field}"][at]
            return arrays[stem + field][at] if known else None

        groups[name] += [
            Sample(
                int(step),
                name,
                tuple(part["objectives"]),
                arrays[stem + "losses"][at],
                of("gram", at),
                of("weights", at),
                float(arrays[stem + "length"][at]),
                of("control", at),
                float(gaps[at]),  # earlier files have none
            )
            for at, step in enumerate(arrays[stem + "step"])
        ]
    return {key: state[key] for key in ("every", "keep", "seen")}, groups, places
