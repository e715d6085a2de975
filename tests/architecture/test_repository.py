"""What every package and every document of the repository owes to its readers."""

import re
import tomllib

import lock

LINK = re.compile(r'\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)\s]*)?(?:\s+"(?P<title>[^"]*)")?\)')


def metadata(distribution):
    return tomllib.loads((distribution.folder / "pyproject.toml").read_text())["project"]


def test_every_deployable_has_a_readme_a_lock_and_a_composition_root(root):
    for deployable in lock.distributions(root, lock.DEPLOYABLES):
        for name in ("README.md", "requirements.lock"):
            assert (deployable.folder / name).is_file(), f"{deployable.name} lacks {name}"
        if deployable.folder.parent.name == "services":
            assert list(deployable.folder.glob("src/*/__main__.py")), f"{deployable.name} cannot be started"


def test_every_library_has_a_readme(root):
    assert [d.name for d in lock.distributions(root, ("libs/*",)) if not (d.folder / "README.md").is_file()] == []


def test_every_package_has_tests(root):
    without = [d.name for d in lock.distributions(root) if not list(d.folder.glob("**/test_*.py"))]
    assert without == []


def test_the_libraries_share_one_version_that_the_changelog_knows(root):
    versions = {metadata(distribution)["version"] for distribution in lock.distributions(root, ("libs/*",))}
    assert len(versions) == 1
    changelog = (root / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{versions.pop()}]" in changelog


def test_every_package_is_typed_licensed_and_says_which_python_it_needs(root):
    for distribution in lock.distributions(root):
        project = metadata(distribution)
        assert project["license"] == "Apache-2.0", distribution.name
        assert project["requires-python"] == ">=3.11", distribution.name
        assert list(distribution.folder.glob("src/*/py.typed")), distribution.name


def test_every_link_between_documents_leads_somewhere_and_a_test_in_its_title_is_there(root, tracked):
    broken = []
    for name in tracked:
        if not name.endswith(".md"):
            continue
        for link in LINK.finditer((root / name).read_text()):
            target = (root / name).parent / link[1]
            test = link["title"] or ""
            if not target.exists() or (test.startswith("test_") and f"def {test}(" not in target.read_text()):
                broken.append(f"{name}: {link[0]}")
    assert broken == []


def test_decisions_are_numbered_without_gaps_and_have_all_their_parts(root):
    records = sorted((root / "docs/adr").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        headings = re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Consequences", "Alternatives"], record.name


def test_the_index_of_decisions_lists_each_of_them(root):
    index = (root / "docs/adr/README.md").read_text()
    assert [path.name for path in (root / "docs/adr").glob("[0-9]*.md") if f"({path.name})" not in index] == []
