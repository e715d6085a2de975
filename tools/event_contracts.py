"""Writes charts/sagas/sagas/event-contracts.yaml: the contracts of the events that a choreography of the chart names.

The monitor knows no events but by these: a ConfigMap, to which `descriptors` of the Choreography refers. Run by
`make asyncapi`; a test compares the file with what this would write.
"""

import base64
from pathlib import Path

import yaml
from amends_contracts import descriptor_set
from amends_saga.choreography import needed_files

SAGAS = Path(__file__).resolve().parent.parent / "charts" / "sagas" / "sagas"
TARGET = SAGAS / "event-contracts.yaml"
HEAD = "# Made by `make asyncapi` from protos/: what the monitor knows of the events of the choreography.\n"


def document() -> str:
    """Return the text of the ConfigMap."""
    choreography = yaml.safe_load((SAGAS / "choreography.yaml").read_text())
    spec, metadata = choreography["spec"], choreography["metadata"]
    reference = spec["descriptors"]["configMapRef"]
    files = needed_files(descriptor_set(), [one["event"] for one in spec["events"]])
    data = base64.b64encode(files.SerializeToString(deterministic=True)).decode()
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": reference["name"], "namespace": metadata["namespace"]},
        "binaryData": {reference["key"]: data},
    }
    return HEAD + yaml.safe_dump(config_map, sort_keys=False, width=100_000)


if __name__ == "__main__":
    TARGET.write_text(document())
