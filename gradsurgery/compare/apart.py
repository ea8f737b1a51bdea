"""Lines of several optimizers: each optimizer's are those of a task of its own."""

from collections.abc import Iterable
from typing import Any

from gradsurgery.compare.choice import Line


def apart(lines: Iterable[Line]) -> list[Line]:
    """The lines, where several optimizers were used with "TASK, OPTIMIZER" for the task.

    What is said of a task, its step times for example, is said of each of these.
    """
    lines = list(lines)
    used = list(dict.fromkeys(line["optimizer"] for line in lines if "key" in line))
    if len(used) < 2:
        return lines
    made: list[Line] = []
    for line in lines:
        if "optimizer" in line and "task" in line:
            made.append({**line, "task": _name(line["task"], line["optimizer"])})
        elif line["kind"] == "timing":
            made += [{**line, "task": _name(line["task"], one)} for one in used]
        elif isinstance(line.get("tasks"), dict):
            tasks: dict[str, Any] = line["tasks"]
            many = {_name(task, one): said for task, said in tasks.items() for one in used}
            made.append({**line, "tasks": many})
        else:
            made.append(line)
    return made


def _name(task: str, optimizer: str | None) -> str:
    return f"{task}, {optimizer or 'its own optimizer'}"
