"""Python's `autobahn` on asyncio, as client and as server; a server echoes."""

import asyncio

from autobahn.asyncio.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)

from peer import bytes_of, commands, tell, tell_close, tell_listening, tell_message


# Its default of 1 s for a Close is rounded down to a whole second of the clock, and so may be none at all.
TIMEOUTS = {"openHandshakeTimeout": 20, "closeHandshakeTimeout": 20}
# How long it waits for the end of TCP before it calls the end unclean.
CLIENT_TIMEOUTS = {**TIMEOUTS, "serverConnectionDropTimeout": 20}


class Peer:
    """What client and server have in common; the last one that opened gets the commands."""

    current = None
    echo = False

    def onOpen(self):
        Peer.current = self
        tell("open", subprotocol=self.websocket_protocol_in_use)

    def onMessage(self, payload, isBinary):
        tell_message(payload, isBinary)
        if self.echo:
            self.sendMessage(payload, isBinary)

    def onPong(self, payload):
        tell("pong", payload=payload.decode())

    def onClose(self, wasClean, code, reason):
        tell_close(code, reason or "", wasClean)


class Client(Peer, WebSocketClientProtocol):
    pass


class Server(Peer, WebSocketServerProtocol):
    echo = True

    def onConnect(self, request):
        supported = self.factory.subprotocols
        return next((one for one in request.protocols if one in supported), None)


async def open_client(loop, command):
    factory = WebSocketClientFactory(command["url"], protocols=command["subprotocols"], loop=loop)
    factory.protocol = Client
    factory.setProtocolOptions(**CLIENT_TIMEOUTS)
    if command["deflate"]:
        factory.setProtocolOptions(
            perMessageCompressionOffers=[PerMessageDeflateOffer()],
            perMessageCompressionAccept=accept_response,
        )
    await loop.create_connection(factory, factory.host, factory.port)


def accept_response(response):
    if isinstance(response, PerMessageDeflateResponse):
        return PerMessageDeflateResponseAccept(response)
    return None


async def listen(loop, command):
    factory = WebSocketServerFactory(loop=loop)
    factory.protocol = Server
    factory.subprotocols = command["subprotocols"]
    factory.setProtocolOptions(**TIMEOUTS)
    if command["deflate"]:
        factory.setProtocolOptions(perMessageCompressionAccept=accept_offer)
    tell_listening(await loop.create_server(factory, "127.0.0.1", 0))


def accept_offer(offers):
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


async def main():
    loop = asyncio.get_running_loop()
    async for command in commands():
        match command["do"]:
            case "open":
                await open_client(loop, command)
            case "listen":
                await listen(loop, command)
            case "send":
                payload, count = bytes_of(command), command["fragments"]
                size = None if count == 1 else -(-len(payload) // count)
                Peer.current.sendMessage(payload, command["binary"], fragmentSize=size)
            case "ping":
                Peer.current.sendPing(command["payload"].encode())
            case "close" if command["code"] is None:
                Peer.current.sendClose()
            case "close":
                Peer.current.sendClose(command["code"], command["reason"])


asyncio.run(main())
