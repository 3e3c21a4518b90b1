"""wsproto at the other end: its state machine over asyncio's sockets, all answers by hand."""

import asyncio
from urllib.parse import urlsplit

import wsproto
from agent import HOST, End, run, to_bytes, to_text
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import ProtocolError


def raw(fields):
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields]


def readable(fields):
    return [(bytes(name).decode("ascii"), bytes(value).decode("ascii")) for name, value in fields]


class WsprotoEnd(End):
    def __init__(self, name):
        super().__init__(name)
        self.parts = []
        self.frames = 0
        self.close_received = (1006, "")
        self.rejection = None
        self.server = None
        self.writer = None

    @property
    def extensions(self):
        return [PerMessageDeflate()] if self.options.get("compression") else []

    # Opening

    async def listen(self):
        server = await asyncio.start_server(
            self.accept, HOST, self.options.get("port", 0), ssl=self.server_context
        )
        self.server = server
        self.tell("listening", port=server.sockets[0].getsockname()[1])

    async def accept(self, reader, writer):
        self.ws = WSConnection(ConnectionType.SERVER)
        self.begin(self.receive(reader, writer))

    async def connect(self):
        url = urlsplit(self.options["url"])
        reader, writer = await asyncio.open_connection(
            url.hostname, url.port, ssl=self.client_context
        )
        self.ws = WSConnection(ConnectionType.CLIENT)
        request = Request(
            host=f"{url.hostname}:{url.port}",
            target=url._replace(scheme="", netloc="").geturl(),
            subprotocols=self.protocols,
            extensions=self.extensions,
            extra_headers=raw(self.headers),
        )
        writer.write(self.ws.send(request))
        self.begin(self.receive(reader, writer))

    def answer(self, request):
        refusal = self.options.get("refuse")
        if refusal is not None:
            self.refuse(refusal)
            return
        common = [name for name in request.subprotocols if name in self.protocols]
        accepted = AcceptConnection(
            subprotocol=common[0] if common else None,
            extensions=self.extensions,
            extra_headers=raw(self.headers),
        )
        self.write(accepted)
        self.tell(
            "open",
            protocol=accepted.subprotocol or "",
            target=request.target,
            headers=readable(request.extra_headers),
            extensions=request.extensions,
        )

    def refuse(self, refusal):
        body = refusal["body"].encode("ascii")
        fields = [*refusal["headers"], ("Content-Length", str(len(body)))]
        status = refusal["status"]
        self.write(RejectConnection(status_code=status, headers=raw(fields), has_body=True))
        half = len(body) // 2
        self.write(RejectData(data=body[:half], body_finished=False))
        self.write(RejectData(data=body[half:], body_finished=True))

    # Receiving

    async def receive(self, reader, writer):
        self.writer = writer
        try:
            while True:
                # RFC 6455 §7.1.1: it is the server that ends the transport.
                if self.ws.state is ConnectionState.CLOSED and not self.ws.client:
                    break
                data = await reader.read(65536)
                if self.ws.state is not ConnectionState.CLOSED:
                    self.ws.receive_data(data or None)
                    for event in self.ws.events():
                        self.handle(event)
                if not data:
                    break
        except ProtocolError as error:
            self.tell("failed", message=str(error))
        except ConnectionError:
            pass
        finally:
            writer.close()
        if self.ws.connection is not None:
            code, reason = self.close_received
            self.tell("closed", code=int(code), reason=reason or "")
        elif self.ws.client and self.rejection is None:
            self.tell("failed", message="no response")

    def handle(self, event):
        if isinstance(event, Request):
            self.answer(event)
        elif isinstance(event, AcceptConnection):
            extensions = [extension.name for extension in event.extensions]
            headers = readable(event.extra_headers)
            protocol = event.subprotocol or ""
            self.tell("open", protocol=protocol, headers=headers, extensions=extensions)
        elif isinstance(event, RejectConnection):
            self.rejection = {"status": event.status_code, "headers": readable(event.headers)}
            self.body = b""
        elif isinstance(event, RejectData):
            self.body += event.data
            if event.body_finished:
                self.tell("refused", **self.rejection, body=self.body.decode("ascii"))
        elif isinstance(event, Message):
            self.take(event)
        elif isinstance(event, Ping):
            self.tell("ping", data=to_text(event.payload))
            self.write(event.response())
        elif isinstance(event, Pong):
            self.tell("pong", data=to_text(event.payload))
        elif isinstance(event, CloseConnection):
            self.close_received = (event.code, event.reason)
            if self.ws.state is ConnectionState.REMOTE_CLOSING:
                self.write(event.response())

    def take(self, event):
        self.parts.append(event.data)
        self.frames += event.frame_finished
        if not event.message_finished:
            return
        text = isinstance(event, TextMessage)
        data = ("" if text else b"").join(self.parts)
        if self.options.get("echo"):
            self.write(type(event)(data=data))
        else:
            self.tell(
                "message",
                type="text" if text else "binary",
                data=to_text(data.encode() if text else data),
                parts=self.frames,
            )
        self.parts = []
        self.frames = 0

    # Sending

    def write(self, event):
        self.writer.write(self.ws.send(event))

    async def send(self, type, parts, pings=(), raw=False):
        for index, part in enumerate(map(to_bytes, parts)):
            last = index == len(parts) - 1
            if raw:
                self.send_raw(type, part, index == 0, last)
            elif type == "text":
                self.write(TextMessage(data=part.decode(), message_finished=last))
            else:
                self.write(BytesMessage(data=part, message_finished=last))
            for payload in pings[index : index + 1]:
                self.write(Ping(payload=to_bytes(payload)))
        await self.writer.drain()

    def send_raw(self, type, part, first, last):
        """Text is taken as str only: what is none goes as bytes, under the opcode of text."""
        frame = bytearray(self.ws.send(BytesMessage(data=part, message_finished=last)))
        if first and type == "text":
            frame[0] = frame[0] & 0xF0 | 0x1
        self.writer.write(frame)

    async def ping(self, data):
        self.write(Ping(payload=to_bytes(data)))

    async def pong(self, data):
        self.write(Pong(payload=to_bytes(data)))

    async def close(self, code=None, reason=None):
        self.write(CloseConnection(code=code, reason=reason))

    async def abort(self):
        self.writer.transport.abort()

    async def stop(self):
        if self.server is not None:
            self.server.close()
        if self.writer is not None:
            await self.abort()


run(WsprotoEnd, wsproto.__version__)
