"""Tasks: real data, a model and its losses under a name. One task, one function, one file."""

from gradsurgery.tasks.metric import ACCURACY, Metric
from gradsurgery.tasks.problem import Batch, Better, Problem
from gradsurgery.tasks.task import Task, get_task, task, task_names

__all__ = [
    "ACCURACY",
    "Batch",
    "Better",
    "Metric",
    "Problem",
    "Task",
    "get_task",
    "task",
    "task_names",
]
