"""What leaves a process of ours leaves by one door."""

import ast

import pytest

DIAL = "libs/chassis/src/amends_chassis/dial.py"
CHANNELS = {"insecure_channel", "secure_channel"}


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


def test_channels_are_opened_in_one_place(modules):
    assert [found for module in modules for found in bare_channels(module)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (bare_channels, "bench/src/x.py", "grpc.aio.insecure_channel(t)"),
        (bare_channels, "cli/src/x.py", "from grpc import secure_channel\nsecure_channel(t, c)"),
    ],
)
def test_a_way_past_the_door_is_found(module_of, rule, path, text):
    assert list(rule(module_of.parse(path, text)))
