"""Makes topics on a broker as contracts say: `amends events ensure`. Called by `commands.events`."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from amends_cli.failure import CliError, Exit, usage

if TYPE_CHECKING:
    from amends_events import Broker, Topic
    from google.protobuf.descriptor_pb2 import FileDescriptorSet


def declared(contracts: "FileDescriptorSet") -> dict[str, int]:
    """Return the topics that contracts declare, with their partitions. Raises CliError."""
    from amends_events import ContractError, declared_topics

    try:
        return {topic.name: topic.partitions for topic in declared_topics(contracts)}
    except ContractError as error:
        raise CliError(str(error)) from None


def only(topics: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return the topics of these names, or all. Raises CliError (wrong use) for a name that no contract has."""
    if unknown := [name for name in names if name not in topics]:
        raise usage(f"no contract declares the topic {unknown[0]}", f"There are: {', '.join(sorted(topics))}.")
    return {name: topics[name] for name in sorted(names or topics)}


def make(broker: str, topics: Mapping[str, int], retention: timedelta, *, dry_run: bool) -> list[dict[str, object]]:
    """Make the topics that are not there; return what became of each. Raises CliError."""
    from amends_events import BrokerError, Topic, TopicError, open_broker

    try:
        client = open_broker(broker)
    except ValueError as error:
        raise usage(str(error)) from None
    wanted = [Topic(name, partitions) for name, partitions in topics.items()]
    try:
        return asyncio.run(_make(client, wanted, retention, dry_run))
    except TopicError as error:
        raise CliError(str(error), "Nothing of it was changed.") from None
    except BrokerError as error:
        raise CliError(str(error), "Look at --broker.", Exit.UNREACHABLE) from None


async def _make(
    broker: "Broker", topics: Sequence["Topic"], retention: timedelta, dry_run: bool
) -> list[dict[str, object]]:
    from amends_events import AppendRefusedError, TopicError

    try:
        there = {}
        for topic in topics:
            try:
                there[topic.name] = len(await broker.ends(topic.name))
            except AppendRefusedError:
                there[topic.name] = 0
        if dry_run:
            for topic in topics:
                if there[topic.name] not in (0, topic.partitions):
                    raise TopicError(
                        f"the topic {topic.name} has {there[topic.name]} partitions and should have {topic.partitions}"
                    )
        else:
            await broker.ensure(topics, retention)
    finally:
        await broker.close()
    absent = "would be made" if dry_run else "made"
    return [
        {
            "topic": topic.name,
            "partitions": topic.partitions,
            "result": "was there" if there[topic.name] == topic.partitions else absent,
        }
        for topic in topics
    ]
