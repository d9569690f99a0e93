"""The event subscriptions of a template, as values: who wants which events, where to, how often, and what then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.arm.expressions import ArmError
from local.arm.functions import unique_string
from local.arm.template import LOCAL_GROUP_ID, Template
from local.eventgrid.filters import EventFilter, FilterError, parse_filter
from local.eventgrid.retry import Limits

SYSTEM_TOPIC = "Microsoft.EventGrid/systemTopics"
CUSTOM_TOPIC = "Microsoft.EventGrid/topics"
_UNIQUE_HERE = f"-{unique_string(LOCAL_GROUP_ID)}"
LOCAL_TOPICS: Mapping[str, str] = {
    "microsoft.storage.storageaccounts": "storage",
    "microsoft.machinelearningservices.workspaces": "workspace",
}
"""A system topic's type → its name in a local run's addresses.

A custom topic keeps its name, without the end that makes it unique in Azure.
"""


@dataclass(frozen=True, slots=True)
class FunctionDestination:
    """Deliver to a function's Event Grid trigger."""

    function: str
    max_events: int = 1
    preferred_kilobytes: int = 64


@dataclass(frozen=True, slots=True)
class QueueDestination:
    """Deliver into a storage queue, one event a message."""

    queue: str
    time_to_live_seconds: int
    """-1: a message never expires."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One event subscription."""

    name: str
    topic: str
    """The topic's name in a local run's addresses."""
    source: str
    """What the topic writes into the `topic` field of events that have none: an ARM id."""
    filter: EventFilter
    destination: FunctionDestination | QueueDestination
    limits: Limits
    dead_letter_container: str | None


def subscriptions(template: Template) -> list[Subscription]:
    """Read every event subscription of a template. Raises `ArmError` on one that cannot be run here."""
    systems = {topic.name.lower(): topic.properties for topic in template.resources(SYSTEM_TOPIC)}
    found: list[Subscription] = []
    for resource in template.resources(f"{SYSTEM_TOPIC}/eventSubscriptions", f"{CUSTOM_TOPIC}/eventSubscriptions"):
        topic, _, name = resource.name.partition("/")
        if resource.type.lower().startswith(SYSTEM_TOPIC.lower()):
            topic, source = _system_topic(name, systems.get(topic.lower()))
        else:
            source = f"{LOCAL_GROUP_ID}/providers/{CUSTOM_TOPIC}/{topic}"
            topic = topic.removesuffix(_UNIQUE_HERE)
        if any(other.name.lower() == name.lower() for other in found):
            raise ArmError(f"Two event subscriptions have the name {name!r}; a local run tells them apart by it.")
        found.append(_subscription(name, topic, source, resource.properties))
    return found


def _system_topic(subscription: str, topic: Mapping[str, Any] | None) -> tuple[str, str]:
    if topic is None:
        raise ArmError(f"The event subscription {subscription!r} belongs to a system topic that the template lacks.")
    kind = topic["topicType"]
    if kind.lower() not in LOCAL_TOPICS:
        raise ArmError(f"A local run has no events of the topic type {kind!r}; it has {', '.join(LOCAL_TOPICS)}.")
    return LOCAL_TOPICS[kind.lower()], topic["source"]


def _subscription(name: str, topic: str, source: str, properties: Mapping[str, Any]) -> Subscription:
    with_identity = properties.get("deliveryWithResourceIdentity") or {}
    destination = with_identity.get("destination") or properties.get("destination") or {}
    dead_letters = properties.get("deadLetterWithResourceIdentity") or {}
    target = dead_letters.get("deadLetterDestination") or properties.get("deadLetterDestination") or {}
    retry = properties.get("retryPolicy", {})
    if properties.get("eventDeliverySchema", "EventGridSchema") != "EventGridSchema":
        raise ArmError(f"The event subscription {name!r} must have eventDeliverySchema EventGridSchema in a local run.")
    try:
        wanted = parse_filter(properties.get("filter", {}))
    except FilterError as error:
        raise ArmError(f"The event subscription {name!r}: {error}") from error
    return Subscription(
        name=name,
        topic=topic,
        source=source,
        filter=wanted,
        destination=_destination(name, destination),
        limits=Limits(retry.get("maxDeliveryAttempts", 30), retry.get("eventTimeToLiveInMinutes", 1440)),
        dead_letter_container=target.get("properties", {}).get("blobContainerName"),
    )


def _destination(name: str, declared: Mapping[str, Any]) -> FunctionDestination | QueueDestination:
    kind, properties = declared.get("endpointType"), declared.get("properties", {})
    if kind == "AzureFunction":
        return FunctionDestination(
            function=properties["resourceId"].rpartition("/")[2],
            max_events=properties.get("maxEventsPerBatch", 1),
            preferred_kilobytes=properties.get("preferredBatchSizeInKilobytes", 64),
        )
    if kind == "StorageQueue":
        # Without the setting, Azure lets a message live for seven days.
        return QueueDestination(properties["queueName"], properties.get("queueMessageTimeToLiveInSeconds", 604800))
    raise ArmError(
        f"The event subscription {name!r} delivers to {kind!r}; a local run knows AzureFunction and StorageQueue."
    )
