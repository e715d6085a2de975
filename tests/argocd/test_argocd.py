"""The same objects through Argo CD's own command, with the generated ConfigMap; and through a real API server."""

import asyncio
import re
import shutil
from pathlib import Path

import argocd_cm
import pytest
import yaml
from amends_testkit.kubernetes import Kubernetes

from .conftest import DATA, OBJECTS

ARGOCD = shutil.which("argocd")
HOW_TO_GET = "needs the argocd command, see https://argo-cd.readthedocs.io/en/stable/cli_installation"
needs_argocd = pytest.mark.skipif(ARGOCD is None, reason=HOW_TO_GET)
ONE_OF_EACH = list({name.partition("_")[0]: name for name in OBJECTS}.values())
"""One object for each kind and health: the command takes its time."""
CRDS = Path(__file__).parents[2] / "charts" / "amends-crds" / "templates"


async def overrides(*arguments: str) -> str:
    """`argocd admin settings resource-overrides` with our ConfigMap; what it prints."""
    command = [str(ARGOCD), "admin", "settings", "resource-overrides", *arguments]
    child = await asyncio.create_subprocess_exec(
        *command, f"--argocd-cm-path={argocd_cm.TARGET}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    return out.decode()


@needs_argocd
@pytest.mark.parametrize("name", ONE_OF_EACH)
async def test_argocd_sees_the_health_of_the_name(name: str) -> None:
    said = await overrides("health", str(DATA / f"{name}.yaml"))
    assert f"STATUS: {Path(name).name.partition('_')[0].capitalize()}\n" in said


@needs_argocd
async def test_argocd_lists_what_can_be_done() -> None:
    said = await overrides("list-actions", str(DATA / "SagaRun" / "degraded_parked.yaml"))
    rows = {line.split()[0]: line.split()[-1] for line in said.splitlines()[1:]}
    assert {name for name, disabled in rows.items() if disabled == "false"} == {
        "reconcile",
        "retry",
        "skip",
        "suspend",
    }, said


@needs_argocd
@pytest.mark.parametrize(
    ("name", "action", "diff"),
    [
        ("SagaRun/degraded_parked", "retry", r">     amends.dev/retry: closed\n"),
        ("SagaRun/degraded_parked", "skip", r">     amends.dev/actor: ada\n"),
        ("SagaRun/degraded_parked", "compensate", r">     amends.dev/compensate: closed\n"),
        ("SagaRun/degraded_stepWaiting", "park", r">     amends.dev/park: closed\n"),
        ("Saga/healthy_accepted", "suspend", r">   suspend: true\n"),
        ("Saga/suspended_bySpec", "resume", r"<   suspend: true\n"),
        ("Participant/healthy_accepted", "reconcile", r'>     amends.dev/reconcile-at: "20'),
        ("RetryPolicy/healthy_accepted", "reconcile", r'>     amends.dev/reconcile-at: "20'),
    ],
)
async def test_argocd_changes_what_the_action_says(name: str, action: str, diff: str) -> None:
    said = await overrides(
        "run-action", str(DATA / f"{name}.yaml"), action, "--param=reason=closed", "--param=actor=ada"
    )
    assert re.search(diff, said + "\n"), said


async def test_the_api_server_knows_every_field_of_the_objects(kubernetes: Kubernetes) -> None:
    await kubernetes.define(CRDS)
    objects = [yaml.safe_load((DATA / f"{name}.yaml").read_text()) for name in OBJECTS]
    for number, obj in enumerate(objects):
        obj["metadata"] |= {"namespace": "default", "name": f"case-{number}"}
    text = yaml.safe_dump_all(objects)
    made = await kubernetes.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert len(made.splitlines()) == len(objects)
