"""MonitorService: choreographies and their flows, for people, the command line and the operator."""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from amends_chassis.database import Database
from amends_chassis.errors import InvalidArgument, NotFound
from amends_saga.definition import Document
from amends_saga.findings import Finding

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceServicer
from amends.saga.v1 import definition_service_pb2 as saga
from amends_monitor.definitions import Definitions, UnreadableManifestError, WatchedChoreography
from amends_monitor.flows import (
    Cursor,
    FlowCounts,
    FlowKey,
    FlowQuery,
    JudgedFlow,
    StoredState,
    count,
    judged,
    list_keys,
    read_events,
)
from amends_monitor.reading import FlowReading

SERVICE = "amends.monitor.v1.MonitorService"
PAGE = 100
LONGEST_PAGE = 1_000
LONGEST_TEXT = 500


class MonitorApi(MonitorServiceServicer):
    """Serves choreographies and flows."""

    def __init__(self, database: Database, definitions: Definitions, reading: FlowReading, grace: timedelta) -> None:
        self._database = database
        self._definitions = definitions
        self._reading = reading
        self._grace = grace

    async def ApplyChoreography(
        self, request: pb.ApplyChoreographyRequest, context: Any
    ) -> pb.ApplyChoreographyResponse:
        """Check a Choreography and watch it."""
        _check(namespace=request.namespace, source=request.manifest.source)
        document = Document(request.manifest.source or "manifest", request.manifest.text)
        try:
            applied = await self._definitions.apply(document, request.namespace or "default", request.descriptors)
        except UnreadableManifestError as error:
            return pb.ApplyChoreographyResponse(findings=_findings(error.findings))
        response = pb.ApplyChoreographyResponse(accepted=applied.accepted, findings=_findings(applied.findings))
        for watched in self._definitions.named(applied.namespace, applied.name):
            response.choreography.CopyFrom(self._info(watched, FlowCounts()))
        return response

    async def ListChoreographies(
        self, request: pb.ListChoreographiesRequest, context: Any
    ) -> pb.ListChoreographiesResponse:
        """List the Choreographies, with how many flows are where."""
        await self._definitions.reload()
        counts = await count(self._database.pool, self._grace)
        return pb.ListChoreographiesResponse(
            choreographies=[
                self._info(watched, counts.get(watched.choreography_id, FlowCounts()))
                for watched in self._definitions.named(request.namespace, request.name)
            ]
        )

    async def DeleteChoreography(
        self, request: pb.DeleteChoreographyRequest, context: Any
    ) -> pb.DeleteChoreographyResponse:
        """Stop watching a Choreography."""
        _check(namespace=request.namespace, name=request.name)
        deleted = await self._definitions.delete(request.namespace or "default", request.name)
        return pb.DeleteChoreographyResponse(deleted=deleted)

    async def ListFlows(self, request: pb.ListFlowsRequest, context: Any) -> pb.ListFlowsResponse:
        """List flows: late ones first, then the newest."""
        size = request.page_size or PAGE
        if not 1 <= size <= LONGEST_PAGE:
            raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size is from 1 to {LONGEST_PAGE}.")
        _check(namespace=request.namespace, choreography=request.choreography, key=request.key)
        wanted = _wanted(request)
        async with self._database.pool.acquire() as connection:
            now = await connection.fetchval("SELECT now()")
            cursor = _cursor(request.page_token) if request.page_token else Cursor(now)
            keys, following = await list_keys(connection, wanted, cursor, self._grace, size)
            events = await read_events(connection, keys)
        await self._know(keys)
        flows = []
        for key in keys:
            watched = self._definitions.known.get(key[0])
            flow = judged(watched.plan, events.get(key, ())) if watched is not None else None
            if watched is not None and flow is not None:
                flows.append(self._flow(watched, key[1], flow, cursor.as_of, events=False))
        return pb.ListFlowsResponse(flows=flows, next_page_token=_token(following) if following is not None else "")

    async def GetFlow(self, request: pb.GetFlowRequest, context: Any) -> pb.GetFlowResponse:
        """Read one flow with its events."""
        _check(namespace=request.namespace, choreography=request.choreography, key=request.key)
        namespace = request.namespace or "default"
        await self._definitions.reload()
        for watched in self._definitions.named(namespace, request.choreography) if request.choreography else ():
            key = (watched.choreography_id, request.key)
            async with self._database.pool.acquire() as connection:
                now = await connection.fetchval("SELECT now()")
                events = await read_events(connection, [key])
            flow = judged(watched.plan, events.get(key, ()))
            if flow is not None and flow.state is not StoredState.LEFT_OUT:
                return pb.GetFlowResponse(flow=self._flow(watched, request.key, flow, now, events=True))
        raise NotFound("FLOW_UNKNOWN", "There is no such flow.")

    async def _know(self, keys: Iterable[FlowKey]) -> None:
        if {number for number, _ in keys} - self._definitions.known.keys():
            await self._definitions.reload()

    def _info(self, watched: WatchedChoreography, counts: FlowCounts) -> pb.ChoreographyInfo:
        info = pb.ChoreographyInfo(
            namespace=watched.namespace,
            name=watched.name,
            digest=watched.digest,
            manifest=watched.manifest,
            flows=pb.FlowCounts(
                running=counts.running,
                late=counts.late,
                ended_well=counts.ended_well,
                ended_undone=counts.ended_undone,
                contradictory=counts.contradictory,
            ),
            unread_topics=self._reading.unread(watched),
        )
        info.applied_at.FromDatetime(watched.applied_at)
        return info

    def _flow(
        self, watched: WatchedChoreography, key: str, flow: JudgedFlow, now: datetime, *, events: bool
    ) -> pb.Flow:
        overdue = now - self._grace
        late = flow.due_at is not None and flow.due_at < overdue
        message = pb.Flow(
            namespace=watched.namespace,
            choreography=watched.name,
            key=key,
            state=pb.FLOW_STATE_LATE if late else pb.FlowState.ValueType(flow.state),
            contradiction=flow.judgement.contradiction,
        )
        message.began_at.FromDatetime(flow.began_at)
        message.last_at.FromDatetime(flow.last_at)
        for missing in flow.judgement.missing:
            added = message.missing.add(
                events=missing.events, by=missing.by, upon=missing.upon, late=missing.due_at < overdue
            )
            added.due_at.FromDatetime(missing.due_at)
        for event in flow.events if events else ():
            seen = message.events.add(
                event_id=str(event.event_id),
                event=event.type,
                by=watched.plan.events[event.type].by,
                source=event.source,
            )
            seen.occurred_at.FromDatetime(event.occurred_at)
            seen.seen_at.FromDatetime(event.seen_at)
        return message


def _wanted(request: pb.ListFlowsRequest) -> FlowQuery:
    try:
        names = {pb.FlowState.Name(state).removeprefix("FLOW_STATE_") for state in request.states}
    except ValueError:
        names = {"UNSPECIFIED"}
    if "UNSPECIFIED" in names:
        raise InvalidArgument("STATE_UNKNOWN", "states names a state that does not exist.")
    others = [
        state for state in StoredState if state is not StoredState.LEFT_OUT and (not names or state.name in names)
    ]
    return FlowQuery(request.namespace, request.choreography, request.key, not names or "LATE" in names, others)


def _token(cursor: Cursor) -> str:
    assert cursor.after is not None
    at, number, key = cursor.after
    said = [cursor.as_of.isoformat(), cursor.late, at.isoformat(), number, key]
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


def _cursor(token: str) -> Cursor:
    try:
        as_of, late, at, number, key = json.loads(base64.urlsafe_b64decode(token))
        when, began = datetime.fromisoformat(as_of), datetime.fromisoformat(at)
        if when.tzinfo is None or began.tzinfo is None or not 0 <= number < 2**63 or "\0" in key:
            raise ValueError("no place in a list")
        return Cursor(when, bool(late), (began, number, key))
    except (binascii.Error, ValueError, TypeError):
        raise InvalidArgument("PAGE_TOKEN_INVALID", "page_token is from another list.") from None


def _check(**texts: str) -> None:
    """Refuse a text that is too long, or that no column can hold. Raises InvalidArgument."""
    for name, text in texts.items():
        if len(text) > LONGEST_TEXT or "\0" in text:
            raise InvalidArgument(f"{name.upper()}_INVALID", f"{name} takes up to {LONGEST_TEXT} characters, not NUL.")


def _findings(findings: Sequence[Finding]) -> list[saga.Finding]:
    return [
        saga.Finding(
            code=finding.code,
            severity=saga.SEVERITY_ERROR if finding.is_error else saga.SEVERITY_WARNING,
            message=finding.message,
            hint=finding.hint,
            source=finding.place.source,
            line=finding.place.line,
            column=finding.place.column,
            excerpt=finding.place.excerpt,
            width=finding.place.width,
        )
        for finding in findings
    ]
