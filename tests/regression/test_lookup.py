"""The first look-up of strategies, and names that are near."""

import importlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import gradsurgery as gs
import gradsurgery.contract.plugins as plugins
import gradsurgery.contract.registry as registry

# ---- the first look-up ---------------------------------------------------------------------------


@pytest.fixture
def first(monkeypatch, temporary):
    """As in a fresh process, with plugins that a test lists; each is a function that is called to
    load it.
    """

    class Point:
        def __init__(self, load):
            self.value, self.load = load.__name__, load

    points = []
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [p if hasattr(p, "load") else Point(p) for p in points],
    )
    return points


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, also where a shell began the tests with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
def test_a_look_up_that_is_interrupted_is_finished_by_the_next_one(first, interruptible, stop):
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
    """In a fresh process: an import that raises, then a real Ctrl-C within another one, then a
    registration.
    """
    code = """
import importlib.abc, os, signal, sys, time
import gradsurgery as gs

signal.signal(signal.SIGINT, signal.default_int_handler)

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
    gate = (
        "import plugin_gate; plugin_gate.inside.set(); plugin_gate.asked.wait(5)\n"
        "import time; time.sleep(0.1)\n"
    )
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
        ("PCGrad", "pcgrad"), ("CAGrad", "cagrad"), ("MoCo", "moco"), ("MGDA", "mgda"),
        ("GradNorm", "gradnorm"), ("Nash_MTL", "nash-mtl"), ("NashMTL", "nash-mtl"),
        ("Aligned MTL", "aligned-mtl"), ("IMTLG", "imtl-g"), ("IMTL", "imtl-g"),
        ("uncertainty", "uw"), ("UncertaintyWeighting", "uw"), ("EW", "sum"), ("LS", "sum"),
        ("RLW", "random"), ("GEM", "dualproj"), ("A_GEM", "a-gem"), ("average", "mean"),
        ("Chebyshev", "stch"), ("SDMGrad", "sdmgrad"), ("CR_MOGM", "cr-mogm"), ("ConFIG", "config"),
        ("mdga", "mgda"),
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
