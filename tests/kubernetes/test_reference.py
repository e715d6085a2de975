"""The page about the resources says what the schemas say."""

import crd_reference


def test_the_reference_of_the_resources_is_made_from_the_schemas() -> None:
    assert crd_reference.PAGE.read_text() == crd_reference.page(), "run python tools/crd_reference.py"


def test_the_reference_has_what_kubectl_explain_has() -> None:
    page = crd_reference.page()
    for part in ("`steps[].compensate.request` (required)", "`methods`", "`circuitBreaker.openFor`", "`parked.seq`"):
        assert part in page
