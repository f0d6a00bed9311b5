"""A Feig reader that is asked: who is in the field, and blocks of a transponder's memory. Frames are ``feig``'s."""

from __future__ import annotations

from edge_agent.errors import DeviceLost, DeviceRefused, ReadingRejected
from edge_agent_drivers.rfid import feig
from edge_agent_drivers.stream.conversation import Conversation, Heard

MOST_ROUNDS = 16  # answers of one inventory
RESET = 0x69
_REFUSES = (0x12, 0x13, 0x80, 0x82)  # statuses that say: not so, and not later either


class Damaged(Exception):
    """The answer came, but its frame was wrong. It is told as garbage."""

    def __init__(self, heard: Heard) -> None:
        super().__init__("damaged")
        self.heard = heard


class FeigReader:
    """Asks over a conversation that its driver opens and closes."""

    def __init__(self, device: str, where: str, conversation: Conversation, address: int, timeout_s: float) -> None:
        self._device = device
        self._where = where
        self._conversation = conversation
        self._address = address
        self._timeout_s = timeout_s

    async def inventory(self, reset_field: bool) -> list[bytes]:
        """The numbers of the transponders in the field. Raises DeviceLost, DeviceRefused, ReadingRejected, Damaged."""
        if reset_field:
            await self._ask(feig.framed(bytes([self._address, RESET])), RESET)
        uids: list[bytes] = []
        for rounds in range(MOST_ROUNDS):
            answer = await self._ask(feig.inventory(self._address, more=rounds > 0), feig.ISO_HOST)
            if answer.status == feig.NO_TRANSPONDER:
                break
            if answer.status not in (feig.OK, feig.MORE):
                raise self._rejected(feig.words_of(answer))
            try:
                uids += feig.uids_of(answer.data)
            except feig.NotUnderstood as error:
                raise self._rejected(str(error)) from error
            if answer.status == feig.OK:
                break
        return list(dict.fromkeys(uids))

    async def read(self, uid: bytes, first: int, count: int) -> tuple[int, bytes] | str:
        """(size of a block, bytes) of this transponder, or why not in words. Raises as ``inventory`` does."""
        answer = await self._ask(feig.read_blocks(self._address, uid, first, count), feig.ISO_HOST)
        if answer.status == feig.NO_TRANSPONDER:
            raise self._rejected("the transponder left while it was read")
        if answer.status != feig.OK:
            return feig.words_of(answer)
        try:
            return feig.blocks_of(answer.data, count)
        except feig.NotUnderstood as error:
            raise self._rejected(str(error)) from error

    async def write(self, uid: bytes, first: int, size: int, data: bytes) -> str:
        """Write whole blocks; "" or why not in words. Raises as ``inventory`` does."""
        answer = await self._ask(feig.write_blocks(self._address, uid, first, size, data), feig.ISO_HOST)
        return "" if answer.status == feig.OK else feig.words_of(answer)

    async def _ask(self, request: bytes, command: int) -> feig.Answer:
        def is_answer(heard: Heard) -> bool:
            answer = self._answer(heard)
            return answer is None or (answer.command == command and self._address in (feig.ANY_ADDRESS, answer.address))

        heard = await self._conversation.ask(request, is_answer, self._timeout_s)
        if heard is None:
            hint = "is it on? look at baud, parity (readers come with 38400 and even), bus_address, and the cable"
            raise DeviceLost(self._device, f"{self._where}: the reader does not answer", hint=hint)
        answer = self._answer(heard)
        if answer is None:
            raise Damaged(heard)
        if answer.status in _REFUSES:
            hint = "set the reader to ISO host mode, scan mode off; look at its password"
            raise DeviceRefused(self._device, f"{self._where}: {feig.words_of(answer)}", hint=hint)
        return answer

    def _answer(self, heard: Heard) -> feig.Answer | None:
        if heard.frame.garbage:
            return None
        try:
            return feig.answer_of(heard.frame.raw)
        except feig.NotUnderstood:
            return None

    def _rejected(self, what: str) -> ReadingRejected:
        hint = "hold the transponder nearer, keep metal away; look at the reader's setting for ISO 15693"
        return ReadingRejected(self._device, f"{self._where}: {what}", hint=hint)
