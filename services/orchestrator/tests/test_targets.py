"""Which targets may be called: every hostile form that is known is refused, in both scopes."""

from __future__ import annotations

import pytest
from amends_orchestrator.calls.ports import ConfinementError
from amends_orchestrator.calls.targets import TargetRules, TargetScope
from hypothesis import given
from hypothesis import strategies as st

CLUSTER = TargetRules(TargetScope.CLUSTER, ("apps.example.com",))
LOOPBACK = TargetRules(TargetScope.LOOPBACK)

HOSTILE = [
    "",
    "payments.shop.svc.cluster.local:50051",
    "dns://payments.shop.svc.cluster.local:50051",
    "dns://8.8.8.8/payments.shop.svc.cluster.local:50051",
    "dns:payments.shop.svc.cluster.local:50051",
    "DNS:///payments.shop.svc.cluster.local:50051",
    "dns:///payments.shop.svc.cluster.local",
    "dns:///payments.shop.svc.cluster.local:0",
    "dns:///payments.shop.svc.cluster.local:65536",
    "dns:///payments.shop.svc.cluster.local:050",
    "dns:///payments.shop.svc.cluster.local:50051/",
    "dns:///payments.shop.svc.cluster.local:50051?x=y",
    "dns:///payments.shop.svc.cluster.local.:50051",
    "dns:///payments.shop.svc.cluster.local.evil.com:50051",
    "dns:///a.payments.shop.svc.cluster.local:50051",
    "dns:///user@payments.shop.svc.cluster.local:50051",
    "dns:///payments.shop.svc:50051,evil.com:1",
    "dns:///payments..shop.svc:50051",
    "dns:///-payments.shop.svc:50051",
    "dns:///Payments.shop.svc:50051",
    "dns:///p\u0430yments.shop.svc:50051",
    "dns:///payments\u3002shop.svc:50051",
    "dns:///payments.shop.svc:5\u0660051",
    "dns:///payments.shop.svc:50051\n",
    " dns:///payments.shop.svc:50051",
    "dns:///payments.shop.svc:50051\0",
    "dns:///kubernetes.default.svc:443",
    "dns:///kubernetes.default.svc.cluster.local:443",
    "dns:///example.com:443",
    "dns:///evilapps.example.com:443",
    "dns:///apps.example.com.evil.com:443",
    "dns:///169.254.169.254:80",
    "dns:///2852039166:80",
    "dns:///0xa9fea9fe:80",
    "dns:///0251.0376.0251.0376:80",
    "dns:///[::ffff:169.254.169.254]:80",
    "dns:///[fe80::1]:80",
    "169.254.169.254:80",
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "127.0.0.2:50051",
    "127.1:50051",
    "[::]:50051",
    "[::ffff:127.0.0.1]:50051",
    "ipv4:127.0.0.1:50051",
    "ipv6:[::1]:50051",
    "unix:/tmp/socket",
    "unix:///tmp/socket",
    "unix-abstract:name",
    "vsock:1:50051",
    "xds:///payments",
    "google-c2p:///payments",
    "http://payments.shop.svc:50051",
    "https://payments.shop.svc:50051",
    "localhost.evil.com:50051",
    "dns:///" + "a" * 64 + ".shop.svc:1",
    "dns:///" + ".".join(["a" * 60] * 5) + ".apps.example.com:1",
]


@pytest.mark.parametrize("rules", [CLUSTER, LOOPBACK], ids=["cluster", "loopback"])
@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_is_refused(rules: TargetRules, target: str):
    with pytest.raises(ConfinementError):
        rules.check(target)


@pytest.mark.parametrize(
    "target",
    [
        "dns:///payments.shop.svc:50051",
        "dns:///payments.shop.svc.cluster.local:1",
        "dns:///apps.example.com:443",
        "dns:///a.b.apps.example.com:65535",
    ],
)
def test_services_of_the_cluster_and_allowed_suffixes_are_called_as_they_are_written(target: str):
    assert CLUSTER.check(target) == target


@pytest.mark.parametrize(
    ("target", "dialled"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("dns:///127.0.0.1:50051", "127.0.0.1:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("localhost:50051", "127.0.0.1:50051"),
    ],
)
def test_this_machine_is_called_in_development_only(target: str, dialled: str):
    assert LOOPBACK.check(target) == dialled
    with pytest.raises(ConfinementError):
        CLUSTER.check(target)


@pytest.mark.parametrize(
    "suffix", ["", ".example.com", "example.com.", "*.example.com", "10.0.0.1", "7", "exam ple.com", "my_payments"]
)
def test_a_suffix_that_is_none_is_refused_at_start(suffix: str):
    with pytest.raises(ValueError, match="no DNS suffix"):
        TargetRules(TargetScope.CLUSTER, (suffix,))


def test_a_suffix_without_a_dot_allows_that_name_alone():
    rules = TargetRules(TargetScope.CLUSTER, ("payments", "com"))
    assert rules.check("dns:///payments:50051") == "dns:///payments:50051"
    for target in ("dns:///a.payments:50051", "dns:///evil.com:50051", "dns:///ayments:50051", "payments:50051"):
        with pytest.raises(ConfinementError):
            rules.check(target)


@given(st.text(max_size=80))
def test_whatever_is_allowed_ends_in_the_cluster_or_under_a_suffix(text: str):
    for target in (text, f"dns:///{text}", f"dns:///{text}:50051", f"dns:///x.y.svc{text}:1"):
        try:
            dialled = CLUSTER.check(target)
        except ConfinementError:
            continue
        host = dialled.removeprefix("dns:///").rpartition(":")[0]
        assert host.isascii()
        assert host.endswith((".svc", ".svc.cluster.local", "apps.example.com"))


def test_the_forms_that_are_named_are_those_that_are_taken() -> None:
    for rules, count in ((CLUSTER, 2), (LOOPBACK, 4), (TargetRules(TargetScope.LOOPBACK, ("b.c", "one")), 6)):
        assert len(rules.forms) == count
        for form in rules.forms:
            assert rules.check(form.replace(":port", ":50051")).endswith(":50051")
