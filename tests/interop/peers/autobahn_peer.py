"""autobahn at the other end, over asyncio."""

import asyncio

import autobahn
from agent import HOST, MAX_SIZE, End, run, to_bytes, to_text
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
from autobahn.websocket.types import ConnectionDeny


class Common:
    """What the client and the server share."""

    end = None
    told_open = False

    def opened(self, fields, target=None):
        self.end.ws = self
        self.end.head = {"target": target, "headers": list(fields)}

    def onOpen(self):
        self.told_open = True
        extensions = [str(extension) for extension in self.websocket_extensions_in_use]
        protocol = self.websocket_protocol_in_use or ""
        self.end.tell("open", protocol=protocol, extensions=extensions, **self.end.head)

    def onMessageBegin(self, isBinary):
        self.frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length):
        self.frames += 1
        super().onMessageFrameBegin(length)

    def onMessage(self, payload, isBinary):
        if self.end.options.get("echo"):
            self.sendMessage(payload, isBinary)
        else:
            type = "binary" if isBinary else "text"
            self.end.tell("message", type=type, data=to_text(payload), parts=self.frames)

    def onPing(self, payload):
        self.end.tell("ping", data=to_text(payload))
        self.sendPong(payload)

    def onPong(self, payload):
        self.end.tell("pong", data=to_text(payload))

    def onClose(self, wasClean, code, reason):
        if not self.told_open:
            self.end.tell("failed", message=str(reason))
            return
        if not wasClean and self.remoteCloseCode is None and not self.failedByMe:
            code, reason = 1006, ""
        elif wasClean:
            code = 1005 if self.remoteCloseCode is None else self.remoteCloseCode
            reason = self.remoteCloseReason or ""
        self.end.tell("closed", code=code, reason=reason or "")


class Client(Common, WebSocketClientProtocol):
    def onConnect(self, response):
        self.opened(response.headers.items())


class Server(Common, WebSocketServerProtocol):
    def onConnect(self, request):
        refusal = self.end.options.get("refuse")
        if refusal is not None:
            raise ConnectionDeny(refusal["status"], refusal["body"])
        query = self.http_request_uri
        self.opened(request.headers.items(), query)
        common = [name for name in request.protocols if name in self.end.protocols]
        fields = {}
        for name, value in self.end.headers:
            fields.setdefault(name, []).append(value)
        return (common[0] if common else None), fields


class AutobahnEnd(End):
    server = None
    transport = None
    ws = None

    def build(self, factory_class, protocol, **settings):
        factory = factory_class(**settings)
        factory.protocol = lambda: self.made(protocol())
        size = self.options.get("maxSize", MAX_SIZE)
        factory.setProtocolOptions(
            maxMessagePayloadSize=size,
            maxFramePayloadSize=size,
            openHandshakeTimeout=0,
            echoCloseCodeReason=True,
            failByDrop=False,
        )
        return factory

    def made(self, protocol):
        protocol.end = self
        return protocol

    async def listen(self):
        factory = self.build(WebSocketServerFactory, Server, protocols=self.protocols)
        if self.options.get("compression"):
            factory.setProtocolOptions(perMessageCompressionAccept=self.accept_offer)
        loop = asyncio.get_running_loop()
        port = self.options.get("port", 0)
        self.server = await loop.create_server(factory, HOST, port, ssl=self.server_context)
        self.tell("listening", port=self.server.sockets[0].getsockname()[1])

    @staticmethod
    def accept_offer(offers):
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(offer)

    @staticmethod
    def accept_response(response):
        if isinstance(response, PerMessageDeflateResponse):
            return PerMessageDeflateResponseAccept(response)

    async def connect(self):
        fields = {}
        for name, value in self.headers:
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        factory = self.build(
            WebSocketClientFactory,
            Client,
            url=self.options["url"],
            protocols=self.protocols,
            headers=fields,
        )
        if self.options.get("compression"):
            factory.setProtocolOptions(
                perMessageCompressionOffers=[PerMessageDeflateOffer()],
                perMessageCompressionAccept=self.accept_response,
            )
        loop = asyncio.get_running_loop()
        await loop.create_connection(factory, factory.host, factory.port, ssl=self.client_context)

    async def send(self, type, parts, pings=(), raw=False):
        parts = list(map(to_bytes, parts))
        binary = type == "binary"
        if len(parts) == 1:
            self.ws.sendMessage(parts[0], binary)
            return
        for index, part in enumerate(parts):
            self.ws.sendFrame(
                opcode=0 if index > 0 else 2 if binary else 1,
                payload=part,
                fin=index == len(parts) - 1,
            )
            for payload in pings[index : index + 1]:
                self.ws.sendPing(to_bytes(payload))

    async def ping(self, data):
        self.ws.sendPing(to_bytes(data))

    async def pong(self, data):
        self.ws.sendPong(to_bytes(data))

    async def close(self, code=None, reason=None):
        if code is None:
            self.ws.sendClose()
        else:
            self.ws.sendClose(code, reason or None)

    async def abort(self):
        self.ws.transport.abort()

    async def stop(self):
        if self.server is not None:
            self.server.close()
        if self.ws is not None:
            self.ws.transport.abort()


run(AutobahnEnd, f"autobahn {autobahn.__version__}")
