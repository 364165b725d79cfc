import asyncio
from pathlib import Path

import zmq

from neuroloop.session.loop_socket import LoopSocket


def test_an_error_with_one_message_leaves_the_next_ones_to_be_read(tmp_path: Path) -> None:
    received: list[list[bytes]] = []
    everything = asyncio.Event()

    def receive(frames: list[bytes]) -> None:
        if frames == [b"bad"]:
            raise ValueError("bad")
        received.append(frames)
        if frames == [b"last"]:
            everything.set()

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        endpoint = f"ipc://{tmp_path}/results"
        context = zmq.Context.instance()
        with context.socket(zmq.PUSH) as sender:
            sender.bind(endpoint)
            end = context.socket(zmq.PULL)
            end.connect(endpoint)
            socket = LoopSocket(end, receive)
            for message in (b"first", b"bad", b"next", b"bad", b"last"):
                sender.send(message)
            async with asyncio.timeout(10):
                await everything.wait()
            socket.close()

    asyncio.run(use())
    assert received == [[b"first"], [b"next"], [b"last"]]
