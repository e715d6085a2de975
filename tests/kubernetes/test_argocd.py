"""Argo CD over live resources: their health as its own command sees it, and its actions carried out by the operator."""

import asyncio
import json
import shutil
from pathlib import Path

import argocd_cm
import pytest
from amends_testkit.waiting import eventually

from tests.argocd.conftest import Run
from tests.argocd.conftest import run as run

from .conftest import Namespace

ARGOCD = shutil.which("argocd")
HOW_TO_GET = "needs the argocd command, see https://argo-cd.readthedocs.io/en/stable/cli_installation"
needs_argocd = pytest.mark.skipif(ARGOCD is None, reason=HOW_TO_GET)


async def health(folder: Path, body: dict) -> str:
    """What `argocd admin settings resource-overrides health` says of an object."""
    path = folder / "object.json"
    path.write_text(json.dumps(body))
    child = await asyncio.create_subprocess_exec(
        *(str(ARGOCD), "admin", "settings", "resource-overrides", "health", str(path)),
        f"--argocd-cm-path={argocd_cm.TARGET}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    return out.decode()


async def act(namespace: Namespace, run: Run, kind: str, name: str, action: str, **parameters: str) -> None:
    """Does to an object what Argo CD does: the script changes it, and the change is written."""
    body = await namespace.get(kind, name)
    offered = run(argocd_cm.script(body["kind"], "actions/discovery"), body)
    assert offered[action]["disabled"] is False
    changed = run(argocd_cm.actions(body["kind"])[action], body, parameters)
    wanted = {
        "metadata": {"annotations": changed["metadata"].get("annotations") or None},
        "spec": {"suspend": changed["spec"].get("suspend")},
    }
    await namespace.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(wanted))


@needs_argocd
async def test_argocd_sees_the_health_of_live_resources(served: Namespace, tmp_path: Path) -> None:
    (saga,) = served.example("shop/saga.yaml")
    saga["metadata"]["name"] = "sick"
    saga["spec"]["steps"][0]["request"] = "ReserveRequest{order_id: input.nothing}"
    await served.apply(
        saga, served.run("completed", "well"), served.run("parked", "ill"), served.run("declined", "undone")
    )
    seen = [
        ("saga", "fulfil-order", "Accepted", "Healthy"),
        ("participant", "payments", "Accepted", "Healthy"),
        ("retrypolicy", "charge", "Accepted", "Healthy"),
        ("saga", "sick", "Refused", "Degraded"),
        ("sagarun", "well", "Completed", "Healthy"),
        ("sagarun", "ill", "Parked", "Degraded"),
        ("sagarun", "undone", "Compensated", "Degraded"),
    ]
    for kind, name, phase, status in seen:
        assert f"STATUS: {status}\n" in await health(tmp_path, await served.until(kind, name, phase)), name
    stale = await served.get("saga", "fulfil-order")
    stale["metadata"]["generation"] += 1
    assert "STATUS: Progressing\n" in await health(tmp_path, stale)
    await served.kubectl("delete", "saga", "sick")
    await served.kubectl("annotate", "sagarun", "ill", "amends.dev/skip=by hand")
    await served.until("sagarun", "ill", "Compensated")


async def test_a_parked_run_is_skipped_by_an_action(served: Namespace, run: Run) -> None:
    await served.apply(served.run("parked", "acted-on"))
    await served.until("sagarun", "acted-on", "Parked")
    await act(served, run, "sagarun", "acted-on", "skip", reason="refunded by hand", actor="ada")
    ended = await served.until("sagarun", "acted-on", "Compensated")
    said = ended["status"]["lastResolution"]
    assert (said["action"], said["actor"], said["reason"]) == ("skip", "ada", "refunded by hand")

    async def taken_off() -> bool:
        annotations = (await served.get("sagarun", "acted-on"))["metadata"].get("annotations", {})
        return not [name for name in annotations if name.startswith("amends.dev/skip")]

    await eventually(taken_off, what="the annotation of the decision is gone")


async def test_a_run_under_way_is_undone_by_an_action(served: Namespace, run: Run) -> None:
    await served.apply(served.run("slow", "called-back"))
    await served.until("sagarun", "called-back", "Running")
    await act(served, run, "sagarun", "called-back", "compensate", reason="customer called", actor="ada")
    ended = await served.until("sagarun", "called-back", "Compensated")
    assert "ada: customer called" in ended["status"]["message"]


async def test_resources_are_suspended_resumed_and_reconciled_by_actions(served: Namespace, run: Run) -> None:
    for kind, name in (("saga", "fulfil-order"), ("participant", "shipping"), ("retrypolicy", "charge")):
        await act(served, run, kind, name, "suspend")
        await served.until(kind, name, "Suspended")
        await act(served, run, kind, name, "resume")
        await served.until(kind, name, "Accepted")
        await act(served, run, kind, name, "reconcile")
        body = await served.until(kind, name, "Accepted")
        asked = body["metadata"]["annotations"]["amends.dev/reconcile-at"]
        await served.kubectl(
            "wait", f"--for=jsonpath={{.status.lastHandledReconcileAt}}={asked}", "--timeout=20s", f"{kind}/{name}"
        )
        await served.kubectl("annotate", kind, name, "amends.dev/reconcile-at-")
