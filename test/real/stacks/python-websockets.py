"""Python's `websockets`, as client and as server; a server echoes."""

import asyncio

import websockets

from peer import bytes_of, commands, parts_of, tell, tell_close, tell_listening, tell_message

# Its default of 1 MiB is for what comes over the wire: noise of 1 MiB does not get shorter by compression.
LARGEST = 2 * 1024 * 1024

tasks = set()


def start(coroutine):
    # The loop itself holds its tasks weakly only.
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


class Peer:
    def __init__(self):
        self.socket = None

    async def use(self, socket, echo):
        self.socket = socket
        tell("open", subprotocol=socket.subprotocol)
        try:
            async for message in socket:
                binary = isinstance(message, bytes)
                tell_message(message if binary else message.encode(), binary)
                if echo:
                    await socket.send(message)
        except websockets.ConnectionClosed:
            # Anything but 1000 and 1001, which end the loop: told below like those.
            pass
        await socket.wait_closed()
        tell_close(socket.close_code, socket.close_reason)

    async def open(self, command):
        compression = "deflate" if command["deflate"] else None
        try:
            socket = await websockets.connect(
                command["url"],
                subprotocols=command["subprotocols"] or None,
                compression=compression,
                max_size=LARGEST,
            )
        except Exception as error:
            tell_close(1006, str(error))
            return
        await self.use(socket, echo=False)

    async def listen(self, command):
        server = await websockets.serve(
            lambda socket: self.use(socket, echo=True),
            "127.0.0.1",
            0,
            subprotocols=command["subprotocols"],
            compression="deflate" if command["deflate"] else None,
            max_size=LARGEST,
        )
        tell_listening(server)

    async def send(self, command):
        payload, count = bytes_of(command), command["fragments"]
        if not command["binary"]:
            payload = payload.decode()
        await self.socket.send(payload if count == 1 else parts_of(payload, count))

    async def ping(self, command):
        await (await self.socket.ping(command["payload"]))
        tell("pong", payload=command["payload"])

    async def close(self, command):
        if command["code"] is None:
            await self.socket.close()
        else:
            await self.socket.close(command["code"], command["reason"])


async def main():
    peer = Peer()
    async for command in commands():
        start(getattr(peer, command["do"])(command))


asyncio.run(main())
