"""The Secrets that the charts read, made once with generated values. They are in the cluster, and nowhere else.

Called by `make kind-up`; what is there already is kept.
"""

import base64
import secrets
from typing import Any

from amends_delivery.kind.place import KindCluster

DATA = "data"
GITOPS = "gitops"
ARGOCD = "argocd"
DATABASES = {
    "orchestrator": "amends",
    "monitor": "amends",
    "orders": "shop",
    "catalog": "shop",
    "customers": "shop",
    "reporting": "shop",
    "search": "shop",
    "identity": "shop",
    "inventory": "shop",
    "marketing": "shop",
    "notifications": "shop",
    "payments": "shop",
    "shipping": "shop",
}
"""Services that have a database, and their namespaces."""
CACHES = {"catalog": "shop", "customers": "shop"}
"""Services that have a Redis of their own, and their namespaces."""
NAMESPACES = sorted({DATA, GITOPS, *DATABASES.values()})
"""Where everything but Argo CD is."""
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
POSTGRES = "postgres.data.svc.cluster.local:5432"
REPOSITORY = "http://git.gitops.svc.cluster.local/amends.git"


def make_namespaces(cluster: KindCluster) -> None:
    """Make the namespaces, in which nothing runs but restricted pods."""
    made = ({"name": name, "labels": RESTRICTED} for name in NAMESPACES)
    cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata} for metadata in made))


def make_databases(cluster: KindCluster) -> None:
    """Make two roles for each service, one that serves and one that owns the tables, and the URL of each."""
    _once(cluster, DATA, "postgres-superuser", ["password"])
    roles = _once(cluster, DATA, "postgres-roles", [role for name in DATABASES for role in (name, f"{name}-owner")])
    for service, namespace in DATABASES.items():
        for role, secret in ((service, f"{service}-database"), (f"{service}-owner", f"{service}-migrations")):
            url = f"postgresql://{role}:{roles[role]}@{POSTGRES}/{service}"
            cluster.apply(_secret(namespace, secret, {"url": url}))


def make_caches(cluster: KindCluster) -> None:
    """Make the one user of each service's Redis, and the URL for the service."""
    for service, namespace in CACHES.items():
        name = f"{service}-cache"
        password = _once(cluster, DATA, f"{name}-password", ["password"])["password"]
        users = f"user default off\nuser {service} on >{password} ~* &* +@all\n"
        cluster.apply(_secret(DATA, name, {"users.acl": users}))
        url = f"redis://{service}:{password}@{name}.{DATA}.svc.cluster.local:6379"
        cluster.apply(_secret(namespace, name, {"url": url}))


def make_keys(cluster: KindCluster) -> None:
    """Make the secrets with which identity encrypts its signing keys, and the gateway seals cookies."""
    _once(cluster, DATABASES["identity"], "identity-keys", ["secret"])
    _once(cluster, DATABASES["identity"], "gateway-cookies", ["secret"])


def make_git(cluster: KindCluster) -> dict[str, str]:
    """Make the git server's tokens, and let Argo CD read with one of them."""
    tokens = _once(cluster, GITOPS, "git-server", ["push", "read", "webhook"])
    repository = {"type": "git", "url": REPOSITORY, "username": "argocd", "password": tokens["read"]}
    labels = {"argocd.argoproj.io/secret-type": "repository"}
    cluster.apply(_secret(ARGOCD, "repository", repository, labels))
    return tokens


def webhook_settings(secret: str) -> dict[str, str]:
    """Return what Argo CD's own Secret needs: a provider without a secret would be believed unsigned."""
    providers = ("github", "gitlab", "gogs", "bitbucketserver")
    return {f"webhook.{provider}.secret": secret for provider in providers} | {
        "webhook.bitbucket.uuid": secret,
        "webhook.azuredevops.username": "argocd",
        "webhook.azuredevops.password": secret,
    }


def read(cluster: KindCluster, namespace: str, name: str) -> dict[str, str]:
    """Return a Secret's texts; empty when there is none."""
    found = cluster.get("secret", name, "-n", namespace)
    data = found.get("data") or {} if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _once(cluster: KindCluster, namespace: str, name: str, keys: list[str]) -> dict[str, str]:
    """Return a Secret's texts, after making those that are missing."""
    held = read(cluster, namespace, name)
    texts = {key: held.get(key) or secrets.token_urlsafe(24) for key in keys}
    if texts != held:
        cluster.apply(_secret(namespace, name, texts))
    return texts


def _secret(namespace: str, name: str, texts: dict[str, str], labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "amends"} | (labels or {}),
        },
        "stringData": texts,
    }
