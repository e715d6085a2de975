"""Mutual TLS by the charts: the files, who may call what, and how health is asked without a certificate."""

import json

import pytest
import yaml
from amends_chassis.access import parse
from amends_contracts import descriptor_set
from amends_orchestrator import permissions
from amends_testkit.kubernetes import Kubernetes

from .conftest import ENVS, ROOT, SERVICES, TAGGED, Helm, Manifest, containers
from .test_api_server import cluster, try_on

SECRET = TAGGED | {"tls": {"existingSecret": "payments-tls"}}
ISSUED = TAGGED | {"tls": {"issuer": {"name": "installation"}}}
ORCHESTRATOR = "spiffe://amends.local/ns/amends/sa/orchestrator"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

__all__ = ["cluster"]


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def environment(container: Manifest) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def edges() -> list[tuple[str, str, str]]:
    """Callee, caller's namespace/name, and method of each entry of `access`."""
    found = []
    for chart in SERVICES:
        for entry in yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text())["access"]:
            caller = f"{entry['from']['namespace']}/{entry['from']['name']}"
            found += [(chart, caller, method) for method in entry["methods"]]
    return found


def methods() -> set[str]:
    """Every method of our contracts, and all methods of each service at once."""
    services = [(file.package, service) for file in descriptor_set().file for service in file.service]
    named = {f"{package}.{service.name}/{method.name}" for package, service in services for method in service.method}
    return named | {f"{package}.{service.name}/*" for package, service in services} | {REFLECTION}


def test_the_files_are_mounted_and_probes_ask_where_no_certificate_is_wanted(helm: Helm, values) -> None:
    made = helm.render("payments", values(SECRET))
    pod = one(made, "Deployment", "payments")["spec"]["template"]
    for container in containers(pod):
        assert environment(container)["AMENDS_TLS_DIR"] == "/etc/amends/tls"
        assert environment(container)["AMENDS_ACCESS"] == "/etc/amends/access/access.json"
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert (mounts["tls"], mounts["access"]) == ("/etc/amends/tls", "/etc/amends/access")
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "payments-tls"
    assert volumes["access"]["configMap"]["name"] == "payments-access"
    (serving,) = pod["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert serving[probe]["grpc"]["port"] == 50052, "the kubelet shows no certificate"
    (asking,) = one(made, "Pod", "payments-test")["spec"]["containers"]
    assert "/readyz" in asking["command"][-1]
    assert not [each for each in made if each["kind"] == "Certificate"]


def test_without_certificates_nothing_of_them_is_rendered(helm: Helm, values) -> None:
    text = helm.text("payments", values(TAGGED))
    assert "tls" not in text
    assert "access.json" not in text
    assert "grpc: {port: 50052, service: readiness}" in text


def test_the_rules_are_those_of_the_values_as_the_service_reads_them(helm: Helm, values) -> None:
    for chart in SERVICES:
        namespace = "amends" if chart in ("monitor", "orchestrator") else "shop"
        made = helm.render(chart, values(SECRET), namespace=namespace)
        rules = parse(one(made, "ConfigMap", f"{chart}-access")["data"]["access.json"], chart)
        given = {
            (caller.removeprefix("spiffe://amends.local/ns/").replace("/sa/", "/"), method.removeprefix("/"))
            for caller, allowed in rules.items()
            for method in allowed
        }
        assert given == {(caller, method) for callee, caller, method in edges() if callee == chart}


def test_the_orchestrators_roles_let_each_of_its_callers_do_what_it_does_and_nothing_more(helm: Helm, values) -> None:
    made = helm.render("orchestrator", values(SECRET), namespace="amends")
    pod = one(made, "Deployment", "orchestrator")["spec"]["template"]
    for container in containers(pod):
        assert environment(container)["AMENDS_ROLES"] == "/etc/amends/roles/roles.json"
    bindings = permissions.parse(one(made, "ConfigMap", "orchestrator-roles")["data"]["roles.json"], "roles.json")
    callers = {caller for callee, caller, _ in edges() if callee == "orchestrator"}
    spiffe = {caller: f"spiffe://amends.local/ns/{caller.replace('/', '/sa/')}" for caller in callers}
    assert set(bindings) == set(spiffe.values()), "who may call has a role, and nobody else"
    orders = permissions.permissions_of(bindings, spiffe["shop/orders"])
    assert orders.may(permissions.Role.OPERATOR, "shop")
    assert not orders.may(permissions.Role.VIEWER, "elsewhere")
    assert not orders.may(permissions.Role.DEFINER, "shop")
    operator = permissions.permissions_of(bindings, spiffe["amends/operator"])
    assert operator.may(permissions.Role.DEFINER, "elsewhere")
    assert not operator.may(permissions.Role.ADMIN, "shop")


def test_without_certificates_no_roles_are_rendered_because_nobody_is_known(helm: Helm, values) -> None:
    assert "roles.json" not in helm.text("orchestrator", values(TAGGED), namespace="amends")


def test_every_entry_names_a_method_that_exists_and_a_deployable_of_the_installation() -> None:
    deployed = set()
    for path in ENVS.values():
        deploy = yaml.safe_load(path.read_text())["deploy"]
        deployed.add(f"{deploy['namespace']}/{deploy['chart']}")
    assert {method for _, _, method in edges()} <= methods()
    assert {caller for _, caller, _ in edges()} <= deployed


def test_the_orchestrator_may_call_what_the_sagas_name_and_read_each_contract_and_nothing_else() -> None:
    called = set()
    for document in yaml.safe_load_all((ROOT / "charts/sagas/sagas/saga.yaml").read_text()):
        for step in document["spec"]["steps"] + document["spec"].get("afterPivot", []):
            called |= {step["call"], *([step["compensate"]["call"]] if "compensate" in step else [])}
    may = {method for _, caller, method in edges() if caller == "amends/orchestrator"}
    assert may == called | {REFLECTION}
    guarded = {method.partition("/")[0] for method in called}
    others = {method for callee, caller, method in edges() if caller != "amends/orchestrator"}
    assert not others & called, f"guarded methods of {guarded} are called by the orchestrator alone"


def test_cert_manager_is_asked_for_the_names_that_servers_and_clients_check(helm: Helm, values) -> None:
    made = helm.render("orchestrator", values(ISSUED), namespace="amends")
    spec = one(made, "Certificate", "orchestrator")["spec"]
    assert spec["uris"] == [ORCHESTRATOR]
    assert "orchestrator.amends.svc.cluster.local" in spec["dnsNames"]
    assert spec["issuerRef"] == {"name": "installation", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert {"server auth", "client auth"} <= set(spec["usages"])
    volumes = one(made, "Deployment", "orchestrator")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "tls", "secret": {"secretName": spec["secretName"], "defaultMode": 0o440}} in volumes
    operator = helm.render("operator", values(ISSUED), namespace="amends")
    assert one(operator, "Certificate", "operator")["spec"]["uris"] == [
        ORCHESTRATOR.replace("orchestrator", "operator")
    ]
    assert not [each for each in operator if each["metadata"]["name"] == "operator-access"]


@pytest.mark.parametrize("chart", ["payments", "operator"])
async def test_a_real_server_takes_what_is_rendered(cluster: Kubernetes, helm: Helm, values, chart: str) -> None:
    made = helm.render(chart, values(SECRET))
    taken = json.loads(await try_on(cluster, "shop", *[each for each in made if each["kind"] != "Role"]))
    assert {"Deployment", "NetworkPolicy"} <= {each["kind"] for each in taken["items"]}
