"""The command `nidl`, with all plugins installed: listing, errors, completion."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import nidl_core as nidl
from nidl_core import hooks
from nidl_core.cli import main
from nidl_core.errors import UnknownComponent
from nidl_core.interfaces import Encoder

HEAVY = ("torch", "lightning", "sklearn", "numpy")


def test_list_shows_every_component_with_its_distribution(capsys):
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    assert ["encoders", "cnn3d", "nidl-backbones"] in [row[:3] for row in rows]
    assert ["losses", "beta_vae", "nidl-vae"] in [row[:3] for row in rows]
    kinds = ("estimators", "encoders", "decoders", "likelihoods", "losses")
    assert len(rows) == sum(len(nidl.available(kind)) for kind in kinds)


def test_list_of_a_kind_as_json_is_for_programs(capsys):
    assert main(["list", "likelihoods", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}

    assert {"bernoulli", "laplace", "normal"} <= entries.keys()
    assert entries["normal"]["target"] == "nidl_likelihoods.normal:Normal"


def test_show_gives_parameters_with_defaults_and_the_documentation(capsys):
    assert main(["show", "normal"]) == 0
    out = capsys.readouterr().out

    assert "nidl-likelihoods:normal" in out
    assert "scale = 1.0" in out
    assert "Rybkin" in out


def test_show_of_a_name_of_two_kinds_shows_both(capsys):
    assert main(["show", "nidl-backbones:cnn2d"]) == 0
    out = capsys.readouterr().out

    assert "one of the encoders" in out
    assert "one of the decoders" in out
    assert "input_shape (required)" in out


# Choices --------------------------------------------------------------------------------------


class Adapter(Encoder):
    """An encoder by the name of a model."""

    names: tuple[str, ...] = tuple(f"net_{i:03}" for i in range(300))

    def __init__(self, input_shape: tuple[int, ...], model: str = "net_000") -> None:
        super().__init__()

    @classmethod
    def choices(cls):
        return {"model": list(cls.names)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class BrokenAdapter(Adapter):
    """An encoder whose library has changed."""

    @classmethod
    def choices(cls):
        raise AttributeError("no list_models")


def test_show_prints_choices_in_columns_as_wide_as_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with nidl.encoders.temporary("adapter", Adapter):
        assert main(["show", "adapter"]) == 0
    lines = capsys.readouterr().out.split("model: one of 300\n")[1].splitlines()[:-1]

    assert max(map(len, lines)) <= 60
    assert lines[0].split() == [f"net_{i:03}" for i in range(0, 300, 50)]  # read downwards
    assert sorted(" ".join(lines).split()) == list(Adapter.names)


def test_show_as_json_has_all_choices(capsys):
    with nidl.encoders.temporary("adapter", Adapter):
        assert main(["show", "adapter", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["choices"] == {"model": list(Adapter.names)}
    assert main(["show", "normal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["choices"] == {}


def test_choices_that_fail_are_told_and_hide_nothing_else(capsys):
    with nidl.encoders.temporary("adapter", BrokenAdapter):
        assert main(["show", "adapter"]) == 0
    out = capsys.readouterr().out

    assert "model = 'net_000'" in out
    assert "(its choices cannot be listed: AttributeError: no list_models)" in out


# Errors ---------------------------------------------------------------------------------------


def test_an_unknown_name_is_one_line_and_exit_status_1(capsys):
    assert main(["show", "norml"]) == 1
    captured = capsys.readouterr()

    installed = ", ".join(nidl.available("likelihoods"))
    assert captured.err == (
        "nidl: UnknownComponent: no likelihood named 'norml'. Did you mean 'normal'? "
        f"Installed: {installed}.\n"
    )
    assert captured.out == ""


@pytest.mark.parametrize("where", [0, 1, 2], ids=["before", "between", "after"])
def test_debug_shows_the_traceback_wherever_it_stands(where):
    words = ["show", "norml"]
    words.insert(where, "--debug")
    with pytest.raises(UnknownComponent):
        main(words)


def test_wrong_usage_is_exit_status_2(capsys):
    for words in (["list", "encoder"], ["fit"], ["nothing-like-it"], ["fit", "a.toml", "--date"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "nidl" in capsys.readouterr().err
    assert main([]) == 2


class Commands:
    """A session plugin with commands that go wrong in different ways."""

    @hooks.hookimpl
    def nidl_cli_commands(self, subparsers: argparse._SubParsersAction) -> None:
        for name, run in (("crash", self.crash), ("starve", self.starve), ("warn", self.warn)):
            subparsers.add_parser(name, help=name).set_defaults(run=run)

    @staticmethod
    def crash(arguments):
        raise RuntimeError("first line\n  second line \x1b[31m" + "x" * 5000)

    @staticmethod
    def starve(arguments):
        raise MemoryError

    @staticmethod
    def warn(arguments):
        warnings.warn("the data\nlook odd", UserWarning, stacklevel=2)
        return 0


class Raises:
    """A session plugin that fails when it should add its commands, or takes the core's."""

    def __init__(self, error):
        self.error = error

    @hooks.hookimpl
    def nidl_cli_commands(self, subparsers):
        subparsers.add_parser("half-way")
        raise self.error


def test_an_exception_that_nobody_foresaw_is_two_short_lines(capsys):
    with hooks.temporary(Commands()):
        assert main(["crash"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("nidl: RuntimeError: first line second line ?[31mxxx")
        assert len(lines[0]) < 1000
        assert lines[1:] == ["nidl: --debug shows where it happened"]

        assert main(["starve"]) == 1
        assert capsys.readouterr().err.splitlines()[0] == "nidl: MemoryError"
        with pytest.raises(RuntimeError, match="first line"):
            main(["crash", "--debug"])


def test_a_warning_is_one_line_without_its_source(capsys):
    with hooks.temporary(Commands()), warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["warn"]) == 0
    assert capsys.readouterr().err == "nidl: warning: the data look odd\n"


@pytest.mark.parametrize("error", [RuntimeError("licence"), SystemExit(3)], ids=repr)
def test_a_plugin_that_fails_to_add_its_commands_takes_no_other_away(error, capsys, monkeypatch):
    monkeypatch.setattr(hooks, "faults", {})
    with hooks.temporary(Raises(error)), hooks.temporary(Commands()):
        assert main(["starve"]) == 1
        with pytest.raises(SystemExit, match="0"):
            main(["demo", "digits", "--help"])
    assert "train, compare, draw" not in capsys.readouterr().err
    assert any("nidl_cli_commands" in fault for fault in hooks.faults.values())


class Show:
    @hooks.hookimpl
    def nidl_cli_demos(self, subparsers):
        def run(arguments):
            raise RuntimeError("the show")

        subparsers.add_parser("show", help="what there is to see").set_defaults(run=run)


def test_a_plugin_adds_a_demonstration(capsys):
    with hooks.temporary(Show()):
        assert main(["demo"]) == 2
        assert "what there is to see" in capsys.readouterr().out
        assert main(["demo", "show"]) == 1
        assert "RuntimeError: the show" in capsys.readouterr().err
        with pytest.raises(RuntimeError, match="the show"):
            main(["demo", "show", "--debug"])


def test_without_demonstrations_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(hooks, "_loaded", list)
    assert main(["demo"]) == 1
    assert "no plugin that is installed has a demonstration" in capsys.readouterr().err


class Thief:
    @hooks.hookimpl
    def nidl_cli_commands(self, subparsers):
        subparsers.add_parser("list").set_defaults(run=lambda arguments: 77)


def test_a_plugin_cannot_take_a_command_of_the_core(capsys, monkeypatch):
    monkeypatch.setattr(hooks, "faults", {})
    with hooks.temporary(Thief()):
        assert main(["list", "losses"]) == 0
        assert main(["--debug", "list", "losses"]) == 0
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
    assert "beta_vae" in capsys.readouterr().out


def test_help_names_the_commands_of_plugins(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    for command in ("demo", "fit", "transform", "reconstruct", "sample", "explain", "completion"):
        assert command in out


# Without torch --------------------------------------------------------------------------------

LIGHT = """
import contextlib, io, json, sys
from nidl_core.cli import main
answers = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    answers.append([status, [m for m in {heavy} if m in sys.modules]])
print(json.dumps(answers))
"""


def test_what_needs_no_torch_does_not_import_it(tmp_path):
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "odd.json").write_text('{"nam": "vae"}')
    (tmp_path / "who.toml").write_text('name = "vea"')
    (tmp_path / "good.toml").write_text('name = "vae"')
    (tmp_path / "a.nidl").write_bytes(b"no zip")
    fit = ["fit", "good.toml", "--data"]
    transform = ["transform", "a.nidl", "--data", "gone.npy", "--out"]
    cases = [
        (["--version"], 0),
        (["--help"], 0),
        (["fit", "--help"], 0),
        (["list"], 0),
        (["list", "encoders", "--json"], 0),
        (["show", "no_such_thing"], 1),
        (["completion", "bash"], 0),
        (["completion", "tcsh"], 2),
        (["fit"], 2),
        (["explain", "bad.toml"], 1),
        (["explain", "odd.json"], 1),
        (["explain", "who.toml"], 1),
        (["explain", "gone.toml"], 1),
        (["explain", "a.nidl"], 1),
        (["explain", "good.toml", "--set", "lr"], 2),
        ([*fit, "gone.npy", "--out", "out"], 1),
        ([*fit, "gone.npy", "--out", "good.toml"], 1),
        ([*transform, "z.npy"], 1),
        ([*transform, "gone/z.npy"], 1),
        ([*transform, "z.csv"], 1),
        (["sample", "gone.nidl", "-n", "4", "--out", "z.npy"], 1),
        (["sample", "a.nidl", "-n", "0", "--out", "z.npy"], 2),
    ]
    answers = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            LIGHT.format(heavy=("torch", "lightning", "sklearn")),
        ],
        input=json.dumps([words for words, _ in cases]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for (words, status), (got, heavy) in zip(cases, json.loads(answers), strict=True):
        assert (got, heavy) == (status, []), words
    assert not (tmp_path / "out").exists()


def test_list_and_help_do_not_import_torch_and_take_less_than_300_ms():
    code = (
        "import sys; from nidl_core.cli import main\n"
        "try: main([{argument!r}])\n"
        "except SystemExit: pass\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    for argument in ("list", "--help"):
        times = []
        for _ in range(5):
            before = os.times()  # of the processor: other work on the machine does not count
            command = [sys.executable, "-c", code.format(argument=argument)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            times.append(sum(after[2:4]) - sum(before[2:4]))
        assert min(times) < 0.3, times


# Completion -----------------------------------------------------------------------------------

TRY = """
eval "$(nidl completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n"'"'><=;|&(:"
_python_argcomplete nidl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(line, folder):
    """What bash offers at the end of this line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        [bash, "-c", TRY, "bash", line],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return [word.strip() for word in run.stdout.splitlines()]


def test_bash_completes_commands_names_ids_kinds_and_files(tmp_path):
    for name in ("vae.toml", "vae.json", "model.nidl", "x.npy", "other.txt"):
        (tmp_path / name).touch()
    assert {"list", "fit", "sample", "demo"} <= set(completed("nidl ", tmp_path))
    assert completed("nidl recon", tmp_path) == ["reconstruct"]
    assert completed("nidl show cnn", tmp_path) == ["cnn2d", "cnn3d"]
    assert "laplace" in completed("nidl show nidl-likelihoods:", tmp_path)
    assert completed("nidl show --kind enc", tmp_path) == ["encoders"]
    assert completed("nidl show --kind losses b", tmp_path) == ["beta_vae"]
    assert sorted(completed("nidl fit ", tmp_path)) == ["vae.json", "vae.toml"]
    assert completed("nidl transform ", tmp_path) == ["model.nidl"]
    assert completed("nidl fit vae.toml --ov", tmp_path) == ["--overwrite"]
    assert "x.npy" in completed("nidl fit vae.toml --data ", tmp_path)


def test_completing_imports_no_torch(tmp_path):
    line = "nidl show cnn"
    answer = tmp_path / "answer"
    env = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    nidl_script = shutil.which("nidl", path=str(Path(sys.executable).parent))
    run = subprocess.run(
        [sys.executable, "-X", "importtime", nidl_script],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}

    assert answer.read_text().split("\013") == ["cnn2d", "cnn3d"]
    assert {"argcomplete", "nidl_core.registry"} <= imported
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_for_nidl(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_ARGCOMPLETE" in script and "nidl" in script
    assert script.startswith("#compdef nidl" if shell != "fish" else "\nfunction __fish_nidl")
