"""websockets at the other end, as its users have it."""

from http import HTTPStatus

import websockets.version
from agent import HOST, MAX_SIZE, End, run, to_bytes, to_text

# Newer versions have another implementation under the short names; this one they all have.
from websockets.exceptions import ConnectionClosed
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Close
from websockets.legacy.auth import basic_auth_protocol_factory
from websockets.legacy.client import WebSocketClientProtocol, connect
from websockets.legacy.server import serve


class Client(WebSocketClientProtocol):
    """A client that keeps the response that it got in place of the upgrade."""

    refusal = None

    async def read_http_response(self):
        status, headers = await super().read_http_response()
        if status != 101:
            length = int(headers.get("Content-Length", "0"))
            body = (await self.reader.readexactly(length)).decode("ascii")
            fields = list(headers.raw_items())
            self.refusal = {"status": status, "headers": fields, "body": body}
        return status, headers


class WebsocketsEnd(End):
    server = None
    ws = None

    # Opening

    @property
    def settings(self):
        return {
            "subprotocols": self.protocols or None,
            "extra_headers": self.headers,
            "compression": "deflate" if self.options.get("compression") else None,
            "max_size": self.options.get("maxSize", MAX_SIZE),
            "ping_interval": None,
        }

    async def listen(self):
        refusal = self.options.get("refuse")
        settings = self.settings

        async def process_request(path, headers):
            if refusal is not None:
                body = refusal["body"].encode("ascii")
                return HTTPStatus(refusal["status"]), refusal["headers"], body

        if "credentials" in self.options:
            credentials = tuple(self.options["credentials"])
            protocol = basic_auth_protocol_factory(realm="interop", credentials=credentials)
            settings["create_protocol"] = protocol
        else:
            settings["process_request"] = process_request
        settings["ssl"] = self.server_context
        port = self.options.get("port", 0)
        self.server = await serve(self.handle, HOST, port, **settings)
        self.tell("listening", port=self.server.sockets[0].getsockname()[1])

    async def connect(self):
        made = []

        def create_protocol(**settings):
            made.append(Client(**settings))
            return made[0]

        url = self.options["url"]
        try:
            settings = {**self.settings, "ssl": self.client_context}
            ws = await connect(url, create_protocol=create_protocol, **settings)
        except Exception as error:
            if made and made[0].refusal is not None:
                self.tell("refused", **made[0].refusal)
            else:
                self.tell("failed", message=str(error))
            return
        self.begin(self.handle(ws))

    async def handle(self, ws):
        self.ws = ws
        headers = ws.response_headers if ws.is_client else ws.request_headers
        self.tell(
            "open",
            protocol=ws.subprotocol or "",
            target=ws.path,
            headers=list(headers.raw_items()),
            extensions=[extension.name for extension in ws.extensions],
        )
        try:
            while True:
                await self.take(await ws.recv())
        except ConnectionClosed:
            pass
        await ws.wait_closed()
        self.tell("closed", code=ws.close_code, reason=ws.close_reason)

    # Receiving

    async def take(self, message):
        if self.options.get("echo"):
            await self.ws.send(message)
        elif isinstance(message, str):
            self.tell("message", type="text", data=to_text(message.encode()))
        else:
            self.tell("message", type="binary", data=to_text(message))

    # Sending

    async def send(self, type, parts, pings=(), raw=False):
        parts = [to_bytes(part) for part in parts]
        if raw:
            for index, part in enumerate(parts):
                opcode = OP_CONT if index > 0 else OP_TEXT if type == "text" else OP_BINARY
                await self.ws.write_frame(index == len(parts) - 1, opcode, part)
            return
        items = [part.decode() for part in parts] if type == "text" else parts

        async def with_pings():
            for index, item in enumerate(items):
                yield item
                for payload in pings[index : index + 1]:
                    await self.ping(payload)

        await self.ws.send(items[0] if len(items) == 1 else with_pings())

    async def ping(self, data):
        self.begin(self.tell_pong(data, await self.ws.ping(to_bytes(data))))

    async def tell_pong(self, data, pong):
        await pong
        self.tell("pong", data=data)

    async def pong(self, data):
        await self.ws.pong(to_bytes(data))

    async def close(self, code=None, reason=""):
        if code is None:
            await self.ws.write_close_frame(Close(1005, ""), b"")
        else:
            # It waits for the other end, and the commands behind it must not.
            self.begin(self.ws.close(code, reason))

    async def abort(self):
        self.ws.transport.abort()

    async def stop(self):
        if self.server is not None:
            self.server.close()
        if self.ws is not None:
            await self.abort()


run(WebsocketsEnd, websockets.version.version)
