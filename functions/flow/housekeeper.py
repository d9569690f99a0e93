"""What nobody waits for: messages that the host gave up, and windows that are long finished."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass
from datetime import timedelta

from functions.core.poison import MOST_TAKES, body_of, put_back
from functions.core.windows import Segment
from functions.flow.intake import Intake
from functions.flow.ports import Clock, PoisonMessage, Queue, Store

_log = logging.getLogger("signalbox.housekeeper")

KEPT_FOR = timedelta(days=7)
"""A window stays for so long beside its manifest, for whoever has to find out how the one became the other."""

_PAUSE = timedelta(minutes=1)

_TAKES_IN_FOR = timedelta(minutes=3)
"""How long one run takes events in; less than a message that failed stays hidden, so that a run meets none twice."""


@dataclass(frozen=True, slots=True)
class Housekeeper:
    """Works at the slow timer's pace. Everything it does can be done again without harm."""

    store: Store
    queue: Queue
    intake: Intake
    clock: Clock

    async def take_up_poison(self) -> None:
        """Put work messages back, and take events in again; what fails on and on becomes a dead letter."""
        for message in await self.queue.take_poison("work"):
            body = body_of(message.text)
            again = put_back(body)
            if isinstance(again, str):
                await self.intake.dead_letter({"raw": base64.b64encode(body).decode("ascii")}, again)
            else:
                _log.warning("put back: %s", again)
                await self.queue.send(again, _PAUSE)
            await self.queue.drop_poison(message)
        # All of them, and together: one burst shall stay one window, and the host lets its poison expire after a week.
        until = self.clock.now() + _TAKES_IN_FOR
        while self.clock.now() < until and (messages := await self.queue.take_poison("events")):
            await asyncio.gather(*(self._take_in(message) for message in messages))

    async def _take_in(self, message: PoisonMessage) -> None:
        body = body_of(message.text)
        try:
            if message.deliveries > MOST_TAKES:
                reason = f"a message of the events queue that failed {MOST_TAKES} times more after the host gave it up"
                await self.intake.give_up(body, reason)
            else:
                await self.intake.take_message(body)
            await self.queue.drop_poison(message)
        except Exception:  # it stays in the queue, and one bad message does not keep the others from being taken in
            _log.exception("a message of the events queue's poison cannot be taken in")

    async def sweep(self) -> None:
        """Delete the blobs of windows whose dispatch is final and a week old. Manifests stay.

        Heads only move forward, so that the number of a deleted window never comes again.
        """
        before = self.clock.now() - KEPT_FOR
        for segment in await self.store.segments_unchanged_since(before):
            head = await self.store.read_head(segment.route, segment.key_digest)
            if head is None or segment.number >= head.number or segment.number == head.unfinished:
                continue
            dispatch = await self.store.read_dispatch(head.dispatch_id(segment.number))
            if dispatch is not None and dispatch.is_final and dispatch.created <= before:
                await self._delete(segment)

    async def _delete(self, segment: Segment) -> None:
        await self.store.delete_segment(segment)
        _log.info("deleted %s: its dispatch is final for a week", segment.name)
