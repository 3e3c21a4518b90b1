"""aiohttp at the other end."""

import asyncio

import aiohttp
from agent import HOST, MAX_SIZE, End, run, to_bytes, to_text
from aiohttp import WSMsgType, web
from multidict import CIMultiDict


def fields(raw):
    return [(name.decode("latin1"), value.decode("latin1")) for name, value in raw]


class AiohttpEnd(End):
    runner = None
    session = None
    ws = None
    transport = None

    @property
    def settings(self):
        return {
            "protocols": self.protocols,
            "autoping": False,
            "max_msg_size": self.options.get("maxSize", MAX_SIZE),
        }

    async def listen(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self.accept)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        port = self.options.get("port", 0)
        site = web.TCPSite(self.runner, HOST, port, ssl_context=self.server_context)
        await site.start()
        self.tell("listening", port=self.runner.addresses[0][1])

    async def accept(self, request):
        refusal = self.options.get("refuse")
        if refusal is not None:
            headers = CIMultiDict(refusal["headers"])
            body = refusal["body"].encode()
            return web.Response(status=refusal["status"], headers=headers, body=body)
        compress = bool(self.options.get("compression"))
        ws = web.WebSocketResponse(compress=compress, **self.settings)
        ws.headers.extend(self.headers)
        await ws.prepare(request)
        self.ws = ws
        self.transport = request.transport
        self.tell(
            "open",
            protocol=ws.ws_protocol or "",
            target=request.raw_path,
            headers=fields(request.raw_headers),
            extensions=["permessage-deflate"] if ws.compress else [],
        )
        await self.receive(ws)
        return ws

    async def connect(self):
        self.session = aiohttp.ClientSession()
        try:
            ws = await self.session.ws_connect(
                self.options["url"],
                headers=CIMultiDict(self.headers),
                compress=15 if self.options.get("compression") else 0,
                ssl=self.client_context,
                **self.settings,
            )
        except aiohttp.WSServerHandshakeError as error:
            headers = list(error.headers.items())
            self.tell("refused", status=error.status, headers=headers, body="")
            return
        self.ws = ws
        response = ws._response
        self.transport = response.connection.transport
        self.tell(
            "open",
            protocol=ws.protocol or "",
            headers=fields(response.raw_headers),
            extensions=["permessage-deflate"] if ws.compress else [],
        )
        self.begin(self.receive(ws))

    async def receive(self, ws):
        reason = ""
        while True:
            message = await ws.receive()
            if message.type is WSMsgType.TEXT:
                await self.take("text", message.data)
            elif message.type is WSMsgType.BINARY:
                await self.take("binary", message.data)
            elif message.type is WSMsgType.PING:
                self.tell("ping", data=to_text(message.data))
                await ws.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self.tell("pong", data=to_text(message.data))
            else:
                if message.type is WSMsgType.CLOSE:
                    reason = message.extra or ""
                break
        if self.closing is not None:
            await self.closing
        elif not ws.closed:
            await ws.close()
        if message.type is WSMsgType.CLOSE:
            # A Close frame without a code is reported as 0. If the answer cannot be written,
            # ws.close_code becomes 1006.
            code = message.data or 1005
        elif ws.close_code is not None:
            code = ws.close_code
        else:
            # It does not wait for the answer to its Close frame while another task receives.
            code = 1006 if self.sent is None else self.sent
        self.tell("closed", code=int(code), reason=reason)

    closing = None
    sent = None

    async def take(self, type, data):
        if not self.options.get("echo"):
            self.tell("message", type=type, data=to_text(data.encode() if type == "text" else data))
        elif type == "text":
            await self.ws.send_str(data)
        else:
            await self.ws.send_bytes(data)

    async def send(self, type, parts, pings=(), raw=False):
        (part,) = map(to_bytes, parts)
        if type == "text":
            await self.ws.send_str(part.decode())
        else:
            await self.ws.send_bytes(part)

    async def ping(self, data):
        await self.ws.ping(to_bytes(data))

    async def pong(self, data):
        await self.ws.pong(to_bytes(data))

    async def close(self, code=None, reason=""):
        # It waits for the other end, and the commands after it must not.
        self.sent = code
        self.closing = asyncio.ensure_future(self.ws.close(code=code, message=reason.encode()))

    async def abort(self):
        self.transport.abort()

    async def stop(self):
        if self.transport is not None:
            self.transport.abort()
        if self.runner is not None:
            await self.runner.cleanup()
        if self.session is not None:
            await self.session.close()


run(AiohttpEnd, f"aiohttp {aiohttp.__version__}")
