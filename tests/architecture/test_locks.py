"""The lock files agree with each other and with what the packages ask for, carry hashes and name no package index."""

import re
import tomllib

import lock
import pytest
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def everything(root):
    return {distribution.name: distribution for distribution in lock.distributions(root)}


@pytest.fixture(scope="module")
def workspace_pins(root):
    return lock.pins(root / "requirements.lock")


def all_locks(root):
    return [
        root / "requirements.lock",
        *(d.folder / "requirements.lock" for d in lock.distributions(root, lock.DEPLOYABLES)),
    ]


def unmet(requirements, pins):
    """The requirements that the pins do not satisfy, for the platform this runs on."""
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        pinned = pins.get(lock.requirement_name(requirement.name))
        if pinned is None or not requirement.specifier.contains(pinned, prereleases=True):
            yield f"{requirement} (pinned: {pinned})"


def test_the_workspace_lock_satisfies_every_package_and_the_development_group(root, everything, workspace_pins):
    workspace = tomllib.loads((root / "pyproject.toml").read_text())
    asked = list(workspace["dependency-groups"]["dev"])
    for distribution in everything.values():
        asked += lock.third_party(distribution.requirements + distribution.build_requirements, everything)
    assert sorted(unmet(asked, workspace_pins)) == [], "run `make lock`"


def test_each_deployables_lock_is_a_part_of_the_workspace_lock(root, everything, workspace_pins):
    for deployable in lock.distributions(root, lock.DEPLOYABLES):
        pins = lock.pins(deployable.folder / "requirements.lock")
        different = {name: version for name, version in pins.items() if workspace_pins.get(name) != version}
        assert different == {}, f"{deployable.name}: run `make lock`"


def test_each_deployables_lock_satisfies_it_and_the_local_packages_below_it(root, everything):
    for deployable in lock.distributions(root, lock.DEPLOYABLES):
        pins = lock.pins(deployable.folder / "requirements.lock")
        for part in lock.closure(deployable, everything):
            missing = sorted(unmet(lock.third_party(part.requirements, everything), pins))
            assert missing == [], f"{deployable.name} through {part.name}: run `make lock`"


def test_every_pin_has_a_hash(root):
    for path in all_locks(root):
        entries = re.split(r"\n(?=[A-Za-z0-9])", path.read_text())[1:]
        assert entries
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == [], path


def test_no_lock_names_an_index_or_a_local_package(root, everything):
    for path in all_locks(root):
        text = path.read_text()
        assert not re.search(r"://|--(extra-)?index-url|--find-links|^-e|file:", text, re.MULTILINE), path
        assert not set(lock.pins(path)) & set(everything), path


def test_the_closure_follows_local_packages_through_each_other(root, everything):
    orders = {part.name for part in lock.closure(everything["shop-orders"], everything)}
    assert {"shop-orders", "amends-chassis", "amends-resilience"} <= orders
    assert "amends-testkit" not in orders
