"""The command line as such: its screens, its errors and exit codes, and what its import costs."""

import importlib
import inspect
import io
import json
import os
import runpy
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from cli_cases import DIGITS, run
from rich.console import Console

import probcl as pcl
from probcl.cli import app, info, screen
from probcl.cli.screen import Screen, screen_and_rest

OWN_PROCESS = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}


def test_importing_the_package_imports_nothing_of_the_command_line() -> None:
    code = "import sys, probcl; print([m for m in ('typer', 'yaml', 'probcl.cli', 'PIL.Image') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=OWN_PROCESS, check=True)
    assert shown.stdout.strip() == "[]"


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    overview = capsys.readouterr().out
    assert run("--help") == 0
    assert capsys.readouterr().out == overview
    assert all(f" {command} " in overview for command in app.COMMANDS)
    assert "Exit codes: 0 fine, 1 it failed, 2 it was asked wrongly, 130 interrupted" in overview
    for command in app.COMMANDS:
        assert run(command, "--help") == 0
        assert f"probcl {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["--version"], ["--json", "--version"]], ids=str)
def test_the_overview_and_the_version_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from probcl.cli import main; assert main({arguments}) == 0;"
        "heavy = {'torch', 'numpy', 'scipy', 'pyro', 'xarray', 'matplotlib', 'sklearn', 'yaml'} & {*sys.modules};"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=OWN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert "probcl" in done.stdout or pcl.__version__ in done.stdout


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_overview_says_of_a_command_what_its_own_help_says(name: str) -> None:
    module = importlib.import_module(f"probcl.cli.{app.COMMANDS[name].module}")
    assert inspect.getdoc(getattr(module, name)).splitlines()[0] == app.COMMANDS[name].summary


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"probcl {pcl.__version__}\n"
    assert run("--json", "--version") == 0
    assert json.loads(capsys.readouterr().out) == {"version": pcl.__version__}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fti", "a.yaml"], 2, "No such command 'fti'"),
        (["fit"], 2, "Missing argument"),
        (["fit", "a.yaml", "--outptu", "b"], 2, "No such option"),
        (["fit", "a.yaml", "--epochs", "many"], 2, "Invalid value for '--epochs'"),
        (["fit", "a.yaml"], 1, "a.yaml: No such file or directory"),
        (["fit", "."], 1, ".: Is a directory"),
        (["fit", "a.json"], 1, "a.json: No such file or directory"),
        (["info", "nowhere"], 1, "nowhere: no model there; a folder with model.safetensors was expected"),
        (["cite", "nowhere"], 1, "nowhere: no model there"),
        (["sample", "m", "--given", "g.npy", "--prior", "normal", "-o", "s.txt"], 2, "s.txt must end in one of"),
        (["diagnose", "m", "-o", "report.pdf"], 2, "report.pdf must end in one of .html"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("module", ["probcl", "probcl.cli"])
def test_the_package_is_run_as_a_module_too(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["anything", "--version"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert done.value.code == 0
    assert capsys.readouterr().out == f"probcl {pcl.__version__}\n"


def test_debug_shows_where_an_error_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tmp_path, "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (ZeroDivisionError("by zero"), 1, "error: ZeroDivisionError: by zero (--debug shows where)"),
        (PermissionError(13, "Permission denied", "x.npy"), 1, "error: x.npy: Permission denied"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (pcl.CheckpointError("of another\nversion"), 1, "error: of another version"),
    ],
)
def test_whatever_is_raised_ends_in_a_line(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(app, "application", lambda _: fail)
    assert run("info") == code
    assert capsys.readouterr().err.strip() == said


def test_ctrl_c_within_a_command_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "open_folder", interrupt)
    assert run("info", "model") == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_warnings_are_lines_on_stderr_and_nothing_is_left_switched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("mind\nthis", pcl.ProbclWarning, stacklevel=1)

    monkeypatch.setattr(app, "application", lambda _: warn)
    before = warnings.showwarning
    assert run("info") == 0
    assert capsys.readouterr().err == "warning: mind this\n"
    assert warnings.showwarning is before


def test_switches_are_taken_wherever_they_stand() -> None:
    taken, rest = screen_and_rest(["-q", "info", "--json", "m", "--", "--debug"])
    assert (taken.quiet, taken.as_json, taken.debug) == (True, True, False)
    assert rest == ["info", "m", "--", "--debug"]


def test_quiet_and_json_leave_only_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(DIGITS)
    assert run("fit", "a.yaml", "-o", "model", "--epochs", 1, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["epochs"] == 1
    assert "pairs: u float32 of shape (1, 8, 8)" in err
    assert run("fit", "a.yaml", "-o", "quiet", "--epochs", 1, "--json", "-q") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "quiet"
    assert not err


def test_what_takes_long_shows_its_progress_and_what_does_not_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def tracked(pause: float) -> str:
        shown = io.StringIO()
        err = Console(file=shown, force_terminal=True, width=100, _environ={"TERM": "xterm"})
        assert list(Screen(err=err).track([1, 2, 3], "counting")) == [1, 2, 3]
        for _ in Screen(err=err).track(range(3), "counting"):
            time.sleep(pause)
        return shown.getvalue()

    monkeypatch.setattr(screen, "_PATIENCE_SECONDS", 0.2)
    assert tracked(0.0) == ""
    assert "counting" in (long := tracked(0.3))
    assert "/s" in long
    assert "3/3" in long
