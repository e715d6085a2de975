"""What leaves a process of ours leaves by one door: channels without a proxy, and texts of others escaped."""

import ast

import pytest

DIAL = "libs/chassis/src/amends_chassis/dial.py"
CHANNELS = {"insecure_channel", "secure_channel"}
PRINTERS = {"cli/src/amends_cli/output.py"}
"""The modules of the command line that may print."""
PRINTING = {"echo", "secho", "print", "Console", "write"}


def called(tree):
    """Each call of a module with the last part of its name: `grpc.aio.insecure_channel(...)` is `insecure_channel`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def bare_channels(module):
    if module.is_test or module.path == DIAL:
        return
    for name, node in called(module.tree):
        if name in CHANNELS:
            yield f"{module.path}:{node.lineno}: open a channel with amends_chassis.dial: a proxy must not see it"


def prints_past_the_gate(module):
    if not module.path.startswith("cli/src/") or module.path in PRINTERS:
        return
    for name, node in called(module.tree):
        if name in PRINTING:
            yield f"{module.path}:{node.lineno}: print with amends_cli.output, which escapes what others said"


def test_channels_are_opened_in_one_place(modules):
    assert [found for module in modules for found in bare_channels(module)] == []


def test_the_command_line_prints_in_one_place(modules):
    assert [found for module in modules for found in prints_past_the_gate(module)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (bare_channels, "bench/src/x.py", "grpc.aio.insecure_channel(t)"),
        (bare_channels, "cli/src/x.py", "from grpc import secure_channel\nsecure_channel(t, c)"),
        (prints_past_the_gate, "cli/src/x.py", "typer.echo(run.message)"),
        (prints_past_the_gate, "cli/src/x.py", "print(run.message)"),
        (prints_past_the_gate, "cli/src/x.py", "sys.stdout.write(run.message)"),
        (prints_past_the_gate, "cli/src/x.py", "from rich.console import Console\nConsole()"),
    ],
)
def test_a_way_past_the_door_is_found(module_of, rule, path, text):
    assert list(rule(module_of.parse(path, text)))
