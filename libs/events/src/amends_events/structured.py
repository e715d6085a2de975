"""The JSON form of an event, for people and partners: CloudEvents 1.0 in structured mode.

Services read the binary form (`envelope`). This one is what tools show and what is sent to those without contracts.
"""

from collections.abc import Mapping

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message

from amends.events.v1.cloud_event_pb2 import CloudEvent as StructuredEvent

JSON = "application/json"
_SPECIAL = {"time", "datacontenttype"}
_NAMES = {field.name for field in StructuredEvent.DESCRIPTOR.fields} - _SPECIAL - {"data", "data_base64"}


def structured(attributes: Mapping[str, str], payload: bytes) -> StructuredEvent:
    """Return the JSON form of a record, as far as it can be read.

    The payload is JSON where its contract is among those of this process and its bytes are that contract's.
    """
    event = StructuredEvent()
    for name in _NAMES & attributes.keys():
        setattr(event, name, attributes[name])
    try:
        event.time.FromJsonString(attributes.get("time", ""))
    except ValueError:
        event.ClearField("time")
    message = _read(attributes.get("type", ""), payload)
    try:
        if message is not None:
            json_format.ParseDict(json_format.MessageToDict(message), event.data)
            event.datacontenttype = JSON
            return event
    except (json_format.Error, ValueError, TypeError):  # such as a moment that no calendar has
        event.ClearField("data")
    event.datacontenttype = attributes.get("datacontenttype", "")
    event.data_base64 = payload
    return event


def _read(name: str, payload: bytes) -> Message | None:
    """Return the message that a payload is; None for a type that this process does not know, or bytes of another."""
    try:
        descriptor = Default().FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor).FromString(payload)
    except (KeyError, DecodeError):
        return None
