"""What the Python programs here share: the words of `test/support/stack.ts`, as `peer.mjs` has them for Node."""

import asyncio
import base64
import hashlib
import json
import sys

# Longer than any command.
LONGEST_LINE = 4 * 1024 * 1024


async def commands():
    """The lines of the input, until its end."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def tell_listening(server):
    tell("listening", port=server.sockets[0].getsockname()[1])


def tell_message(payload, binary):
    tell("message", binary=binary, length=len(payload), sha256=hashlib.sha256(payload).hexdigest())


def tell_close(code, reason, clean=None):
    """`clean`: None where the stack does not say."""
    tell("close", code=code, reason=reason, clean=clean)


def bytes_of(message):
    return base64.b64decode(message["part"]) * message["times"]


def parts_of(payload, count):
    size = -(-len(payload) // count)
    return [payload[at : at + size] for at in range(0, len(payload), size)]
