"""tornado at the other end."""

import socket
import struct

import tornado
from agent import HOST, MAX_SIZE, End, run, to_bytes, to_text
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect


class Handler(WebSocketHandler):
    def initialize(self, end):
        self.end = end

    def prepare(self):
        refusal = self.end.options.get("refuse")
        if refusal is None:
            for name, value in self.end.headers:
                self.add_header(name, value)
            return
        self.set_status(refusal["status"])
        for name, value in refusal["headers"]:
            self.set_header(name, value)
        self.finish(refusal["body"])

    def check_origin(self, origin):
        return True

    def select_subprotocol(self, offered):
        common = [name for name in offered if name in self.end.protocols]
        return common[0] if common else None

    def get_compression_options(self):
        return {} if self.end.options.get("compression") else None

    def open(self, *args):
        self.end.opened(self, self.request.headers, self.request.uri)

    async def on_message(self, message):
        await self.end.take(message)

    def on_ping(self, data):
        self.end.tell("ping", data=to_text(data))

    def on_pong(self, data):
        self.end.tell("pong", data=to_text(data))

    def on_close(self):
        self.end.closed(self)


class TornadoEnd(End):
    server = None
    ws = None

    @property
    def max_size(self):
        return self.options.get("maxSize", MAX_SIZE)

    async def listen(self):
        settings = {"websocket_max_message_size": self.max_size}
        app = Application([(r".*", Handler, {"end": self})], **settings)
        self.server = HTTPServer(app, ssl_options=self.server_context)
        sockets = bind_sockets(self.options.get("port", 0), HOST)
        self.server.add_sockets(sockets)
        self.tell("listening", port=sockets[0].getsockname()[1])

    async def connect(self):
        headers = HTTPHeaders()
        for name, value in self.headers:
            headers.add(name, value)
        context = self.client_context
        settings = {} if context is None else {"ssl_options": context}
        request = HTTPRequest(self.options["url"], headers=headers, **settings)
        try:
            ws = await websocket_connect(
                request,
                subprotocols=self.protocols or None,
                compression_options={} if self.options.get("compression") else None,
                max_message_size=self.max_size,
            )
        except HTTPClientError as error:
            response = error.response
            fields = [] if response is None else list(response.headers.get_all())
            body = response.body.decode() if response is not None and response.body else ""
            self.tell("refused", status=error.code, headers=fields, body=body)
            return
        # It may read the next frame before the task below begins.
        ws.on_ping = lambda data: self.tell("ping", data=to_text(data))
        ws.on_pong = lambda data: self.tell("pong", data=to_text(data))
        self.opened(ws, ws.headers, None)
        self.begin(self.receive(ws))

    def opened(self, ws, headers, target):
        self.ws = ws
        self.tell(
            "open",
            protocol=ws.selected_subprotocol or "",
            target=target,
            headers=list(headers.get_all()),
            extensions=[],
        )

    async def receive(self, ws):
        while True:
            message = await ws.read_message()
            if message is None:
                break
            await self.take(message)
        self.closed(ws)

    def closed(self, ws):
        # A Close frame without a code is not told either.
        code = 1006 if ws.close_code is None else ws.close_code
        self.tell("closed", code=code, reason=ws.close_reason or "")

    @property
    def protocol(self):
        return getattr(self.ws, "ws_connection", None) or getattr(self.ws, "protocol", None)

    async def take(self, message):
        binary = isinstance(message, bytes)
        if self.options.get("echo"):
            await self.ws.write_message(message, binary=binary)
        elif binary:
            self.tell("message", type="binary", data=to_text(message))
        else:
            self.tell("message", type="text", data=to_text(message.encode()))

    async def send(self, type, parts, pings=(), raw=False):
        (part,) = map(to_bytes, parts)
        await self.ws.write_message(part, binary=type == "binary")

    async def ping(self, data):
        self.ws.ping(to_bytes(data))

    async def close(self, code=None, reason=None):
        self.ws.close(code, reason)

    async def abort(self):
        stream = self.protocol.stream
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream.close()

    async def stop(self):
        if self.server is not None:
            self.server.stop()
        if self.ws is not None and self.protocol is not None:
            self.protocol.stream.close()


run(TornadoEnd, f"tornado {tornado.version}")
