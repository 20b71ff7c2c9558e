"""The command `nidl`, with all plugins installed."""

import json
import subprocess
import sys
import time

import pytest

from nidl_core.cli import main


def test_list_shows_every_component_with_its_distribution(capsys):
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    assert ["encoders", "cnn3d", "nidl-backbones"] in [row[:3] for row in rows]
    assert ["losses", "beta_vae", "nidl-vae"] in [row[:3] for row in rows]
    assert len(rows) == 11


def test_list_of_a_kind_as_json_is_for_programs(capsys):
    assert main(["list", "likelihoods", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)

    assert [entry["name"] for entry in entries] == ["bernoulli", "laplace", "normal"]
    assert entries[2]["target"] == "nidl_likelihoods.normal:Normal"


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


def test_an_unknown_name_is_one_line_and_exit_status_1(capsys):
    assert main(["show", "norml"]) == 1
    captured = capsys.readouterr()

    assert captured.err == (
        "nidl: UnknownComponent: no likelihood named 'norml'. Did you mean 'normal'? "
        "Installed: bernoulli, laplace, normal.\n"
    )
    assert captured.out == ""


def test_wrong_usage_is_exit_status_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["list", "encoder"])
    assert "invalid choice" in capsys.readouterr().err


def test_help_names_the_commands_of_plugins(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_list_and_help_do_not_import_torch_and_take_less_than_300_ms():
    code = (
        "import sys; from nidl_core.cli import main\n"
        "try: main([{argument!r}])\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'lightning', 'sklearn', 'numpy') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    for argument in ("list", "--help"):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            command = [sys.executable, "-c", code.format(argument=argument)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        assert min(times) < 0.3, times
