"""Tasks: real data, a model and its losses under a name. One task, one function, one file."""

from gradsurgery.tasks.task import (
    ACCURACY,
    Batch,
    Better,
    Problem,
    Task,
    get_task,
    task,
    task_names,
)

__all__ = ["ACCURACY", "Batch", "Better", "Problem", "Task", "get_task", "task", "task_names"]
