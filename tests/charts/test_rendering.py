"""Every chart renders as it should: by itself, and with the values of each environment."""

import json
import re

import pytest
import yaml

import charts as charts_tool

from .conftest import CHARTS, ENVS, KUBERNETES, ROOT, SERVICES, TAGGED, Helm, containers, pods, updating

SNAPSHOTS = ROOT / "tests" / "charts" / "snapshots"


@pytest.mark.parametrize("chart", CHARTS)
def test_the_defaults_are_as_in_the_snapshot(helm: Helm, chart: str, values) -> None:
    text = helm.text(chart, values(TAGGED)) if "image" in defaults(chart) else helm.text(chart)
    path = SNAPSHOTS / f"{chart}.yaml"
    if updating():
        path.write_text(text)
    assert text == path.read_text(), "if this is wanted: UPDATE_SNAPSHOTS=1 make test ARGS=tests/charts"


def defaults(chart: str) -> dict:
    path = ROOT / "charts" / chart / "values.yaml"
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


@pytest.mark.parametrize("name", ENVS)
def test_the_values_of_an_environment_pass_the_strictest_lint(helm: Helm, name: str) -> None:
    chart = yaml.safe_load(ENVS[name].read_text())["deploy"]["chart"]
    done = helm.run("lint", "--strict", str(helm.charts / chart), "-f", str(ENVS[name]), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert helm.deployed(name)


def test_the_schemas_and_the_page_of_values_are_as_the_library_says() -> None:
    stale = [str(path) for path, text in charts_tool.outputs().items() if path.read_text() != text]
    assert stale == [], "run: make charts"


def test_every_value_of_the_library_is_explained() -> None:
    silent = [name for name, _, text in charts_tool._rows() if not text]
    assert silent == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"image": {"tag": "main"}}, "/image/tag"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest"),
        ({"replicas": -1}, "/replicas"),
        ({"grpc": {"nodePort": 70000}}, "/grpc/nodePort"),
        ({"grpc": {"maxConnectionAge": "5 minutes"}}, "/grpc/maxConnectionAge"),
        ({"resources": {"requests": {"cpu": "1"}}}, "/resources"),
        ({"resources": {"requests": {"memory": "many"}, "limits": {}}}, "/resources/requests/memory"),
        ({"networkPolicy": {"calls": [{"port": 1}]}}, "/networkPolicy/calls/0"),
        ({"access": [{"from": {"name": "orders"}, "methods": ["a.B/C"]}]}, "/access/0/from"),
        ({"access": [{"from": {"name": "a", "namespace": "b"}, "methods": ["/a.B/C"]}]}, "/access/0/methods/0"),
        ({"env": {"lower": "x"}}, "lower"),
        ({"database": {"password": "secret"}}, "password"),
        ({"deploy": {"chart": "orders", "namespace": "shop", "stage": 1}}, "stage"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_its_name(helm: Helm, values, given: dict, said: str) -> None:
    done = helm.try_text("orders", values(TAGGED), values(given, "given"))
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("chart", ["orders", "git-server"])
def test_an_image_without_a_tag_is_refused_with_the_way_to_get_one(helm: Helm, chart: str) -> None:
    done = helm.try_text(chart)
    assert done.returncode != 0
    assert "image.tag" in done.stderr


def test_a_digest_wins_over_a_tag_and_a_registry_comes_first(helm: Helm, values) -> None:
    image = {"registry": "registry.example.com:5000/p", "tag": "t", "digest": f"sha256:{'0' * 64}"}
    (deployment,) = (one for one in helm.render("orders", values({"image": image})) if one["kind"] == "Deployment")
    expected = f"registry.example.com:5000/p/amends/orders@sha256:{'0' * 64}"
    assert {one["image"] for one in containers(deployment["spec"]["template"])} == {expected}


@pytest.mark.parametrize("chart", CHARTS)
def test_nothing_changes_from_one_rendering_to_the_next(helm: Helm, chart: str, values) -> None:
    """What does would be out of sync with git for ever."""
    given = [values(TAGGED)] if "image" in defaults(chart) else []
    assert helm.text(chart, *given) == helm.text(chart, *given)


def test_an_autoscaler_owns_the_number_of_pods(helm: Helm, values) -> None:
    kinds = {one["kind"]: one for one in helm.render("orders", values(TAGGED | {"autoscaling": {"enabled": True}}))}
    assert "replicas" not in kinds["Deployment"]["spec"]
    assert kinds["HorizontalPodAutoscaler"]["apiVersion"] == "autoscaling/v2"
    assert kinds["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleDown"]
    assert kinds["PodDisruptionBudget"]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_one_pod_has_no_budget_of_disruptions(helm: Helm, values) -> None:
    """It could never be moved."""
    assert "PodDisruptionBudget" not in {one["kind"] for one in helm.render("orders", values(TAGGED))}
    more = values(TAGGED | {"replicas": 2}, "more")
    assert "PodDisruptionBudget" in {one["kind"] for one in helm.render("orders", more)}


@pytest.mark.parametrize("chart", SERVICES)
def test_a_service_of_grpc_is_headless_probed_and_drained(helm: Helm, chart: str, values) -> None:
    kinds = {one["kind"]: one for one in helm.render(chart, values(TAGGED))}
    assert kinds["Service"]["spec"]["clusterIP"] == "None"
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["grpc"]["service"] == "liveness"
    assert container["readinessProbe"]["grpc"]["service"] == "readiness"
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    assert {container[probe]["grpc"]["port"] for probe in probes} == {ports["health"]} != {ports["grpc"]}
    assert {"name": "AMENDS_HEALTH_PORT", "value": str(ports["health"])} in container["env"]
    assert container["startupProbe"]["failureThreshold"] >= 30
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    grace = kinds["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert before >= 3
    assert grace > before + int(variables["AMENDS_DRAIN"].removesuffix("s"))
    assert variables["AMENDS_MAX_CONNECTION_AGE"]
    assert kinds["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert len(kinds["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]) == 2


@pytest.mark.parametrize("chart", [name for name in SERVICES if name != "gateway"])
def test_the_schema_is_brought_up_to_date_before_the_new_version_serves(helm: Helm, chart: str, values) -> None:
    (deployment,) = (one for one in helm.render(chart, values(TAGGED)) if one["kind"] == "Deployment")
    (migrate,) = deployment["spec"]["template"]["spec"]["initContainers"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert migrate["args"] == ["migrate"]
    assert (migrate["image"], migrate["env"]) == (container["image"], container["env"])


def test_the_operator_has_one_instance_and_no_grpc(helm: Helm, values) -> None:
    kinds = {one["kind"]: one for one in helm.render("operator", values(TAGGED))}
    assert kinds["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert kinds["Deployment"]["spec"]["replicas"] == 1
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("chart", [*SERVICES, "operator"])
def test_monitoring_is_behind_a_switch(helm: Helm, chart: str, values) -> None:
    ours = ("ServiceMonitor", "PrometheusRule")
    assert not [one for one in helm.render(chart, values(TAGGED)) if one["kind"] in ours]
    on = values(TAGGED | {"monitoring": {"enabled": True, "labels": {"release": "p"}}}, "on")
    kinds = {one["kind"]: one for one in helm.render(chart, on) if one["kind"] in ours}
    assert sorted(kinds) == sorted(ours)
    alerts = [rule["alert"] for rule in kinds["PrometheusRule"]["spec"]["groups"][0]["rules"]]
    assert "Absent" in alerts
    assert len(alerts) == len(set(alerts))
    assert all(one["metadata"]["labels"]["release"] == "p" for one in kinds.values())


def test_who_is_on_call_hears_of_events_and_what_to_type(helm: Helm, values) -> None:
    broker = {"url": "nats://nats.data:4222", "at": {"name": "nats", "namespace": "data", "port": 4222}}
    given = values(TAGGED | {"monitoring": {"enabled": True}, "broker": broker})
    (found,) = (one for one in helm.render("payments", given) if one["kind"] == "PrometheusRule")
    rules = {rule["alert"]: rule for rule in found["spec"]["groups"][0]["rules"]}
    for name, metric, command in (
        ("OutboxWaits", "outbox_oldest_seconds", "outbox"),
        ("EventsLate", "inbox_lag_events", "lag"),
        ("EventsParked", "inbox_keys_blocked", "parked list"),
        ("PositionLost", "inbox_position_lost", "lag"),
    ):
        assert f'{metric}{{namespace="shop",job="payments"}}' in rules[name]["expr"]
        summary = rules[name]["annotations"]["summary"]
        assert f"`kubectl amends events {command} --service shop/payments`" in summary


@pytest.mark.parametrize("chart", CHARTS)
def test_the_notes_end_with_a_command(chart: str) -> None:
    path = ROOT / "charts" / chart / "templates" / "NOTES.txt"
    text = path.read_text()
    if "microservice.notes" in text:
        text = (ROOT / "charts/microservice/templates/_notes.tpl").read_text()
    commands = [line for line in text.splitlines() if line.startswith("  ") and not line.lstrip().startswith("{{")]
    assert commands, path
    assert commands[-1].split()[0] in ("kubectl", "curl", "git", "grpcurl")


def test_labels_are_those_of_kubernetes_and_selectors_never_change(helm: Helm) -> None:
    for name in ENVS:
        for manifest in helm.deployed(name):
            if manifest["kind"] not in ("Deployment", "StatefulSet"):
                continue
            selector = manifest["spec"]["selector"]["matchLabels"]
            assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}, name
            assert selector.items() <= manifest["spec"]["template"]["metadata"]["labels"].items(), name


def test_deployables_differ_by_values_and_not_by_templates() -> None:
    for chart in charts_tool.users():
        assert sorted(path.name for path in (chart / "templates").iterdir()) == ["NOTES.txt", "all.yaml"]
        assert (chart / "templates" / "all.yaml").read_text() == '{{- include "microservice.all" . }}\n'


def test_a_chart_says_which_image_its_version_is(helm: Helm) -> None:
    for name in ENVS:
        for owner, pod in pods(helm.deployed(name)):
            for container in containers(pod):
                assert ":" in container["image"] or "@" in container["image"], f"{name}: {owner}"


def test_schemas_are_valid_json() -> None:
    for path in (ROOT / "charts").glob("*/values.schema.json"):
        assert json.loads(path.read_text())["additionalProperties"] is False, path


def _variables(helm: Helm, *given) -> dict[str, str]:
    (deployment,) = (one for one in helm.render("orchestrator", *given) if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names))
    return {one["name"]: one.get("value") for one in container["env"]}


def test_numbers_are_written_as_they_were_given(helm: Helm, values) -> None:
    env = {"AMENDS_MAX_MESSAGE_BYTES": 16777216, "AMENDS_HOT_RUNS": 1000000, "AMENDS_TRACE_RATIO": 0.00001}
    said = _variables(helm, values(TAGGED | {"env": env}))
    assert {name: said[name] for name in env} == {
        "AMENDS_MAX_MESSAGE_BYTES": "16777216",
        "AMENDS_HOT_RUNS": "1000000",
        "AMENDS_TRACE_RATIO": "0.00001",
    }


def test_every_number_of_every_template_is_an_integer_when_it_is_whole(helm: Helm, values) -> None:
    large = {
        "tracing": {"endpoint": "http://c:4317", "ratio": 0.00001},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1000000}],
    }
    text = helm.text("orchestrator", values(TAGGED | large))
    assert re.findall(r"\b\d(?:\.\d+)?e[+-]\d+", text) == []
    for said in ("tolerationSeconds: 1000000", '"0.00001"'):
        assert said in text


def test_a_variable_of_the_user_wins_over_the_charts_and_is_there_once(helm: Helm, values) -> None:
    assert _variables(helm, values(TAGGED))["AMENDS_HOST"] == "[::]"
    env = {"AMENDS_HOST": "0.0.0.0", "AMENDS_DRAIN": "7s"}
    said = _variables(helm, values(TAGGED | {"env": env}, "mine"))
    assert (said["AMENDS_HOST"], said["AMENDS_DRAIN"]) == ("0.0.0.0", "7s")
    secret = {"secretEnv": {"AMENDS_DATABASE_URL_FILE": {"secret": "s", "key": "k"}}}
    assert _variables(helm, values(TAGGED | secret, "secret"))["AMENDS_DATABASE_URL_FILE"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": {"AMENDS_PORT": 1}}, "set those"),
        ({"env": {"AMENDS_METRICS_PORT": "1"}}, "set those"),
        ({"env": {"A": "x"}, "secretEnv": {"A": {"secret": "s", "key": "k"}}}, "leave one out"),
    ],
)
def test_a_variable_that_contradicts_the_chart_is_refused_in_words(helm: Helm, values, given: dict, said: str) -> None:
    done = helm.try_text("orchestrator", values(TAGGED), values(given, "given"))
    assert done.returncode != 0
    assert said in done.stderr


def test_migrations_may_have_a_role_of_their_own_that_the_service_never_sees(helm: Helm, values) -> None:
    given = TAGGED | {"database": {"migrationsSecret": "orders-owner"}}
    (deployment,) = (one for one in helm.render("orders", values(given)) if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (migrate,), (container,) = pod["initContainers"], pod["containers"]
    name = "AMENDS_MIGRATIONS_DATABASE_URL_FILE"
    assert name in {one["name"] for one in migrate["env"]}
    assert name not in {one["name"] for one in container["env"]}
    assert "migrations" in {one["name"] for one in migrate["volumeMounts"]}
    assert "migrations" not in {one["name"] for one in container["volumeMounts"]}
    assert [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "migrations"] == ["orders-owner"]


def test_reflection_is_answered_where_somebody_needs_it(helm: Helm, values) -> None:
    assert _variables(helm, values(TAGGED))["AMENDS_REFLECTION"] == "false"
    for name in ("kind/orchestrator", "kind/orders", "production/payments"):
        (deployment,) = (one for one in helm.deployed(name) if one["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {"name": "AMENDS_REFLECTION", "value": "true"} in container["env"]
