"""What the peers in Python share.

Commands come on standard input, a JSON object a line, and what happens is told on standard output
in the same way. Each names by "end" the end of a connection that it is about. The program ends
when its standard input does. Its first line tells its version.

A peer gives a subclass of End with a method for each command:

    listen, connect     open one connection as its server or client, with the options below
    send                a message, of a frame for each of its parts; a ping may follow each of these
    ping, pong, close   what they say
    abort               ends the transport without a closing handshake
    stop                ends all of it; nothing is told any more

and tells these events:

    version     version: of the library and of Python, at the start
    listening   port
    open        protocol, extensions, target (of a server), headers (what the other end sent)
    message     type, data, parts (how many frames, where the library says so)
    ping, pong  data
    closed      code, reason: when the transport has ended; 1006 where no Close frame came
    refused     status, headers, body: what a client got in place of the upgrade
    failed      message: what else went wrong with the opening handshake
"""

import asyncio
import base64
import json
import platform
import ssl
import sys

HOST = "127.0.0.1"
LONGEST_LINE = 2**24
# The longest message that a peer accepts if its options do not say.
MAX_SIZE = 2**26


def to_text(data):
    return base64.b64encode(data).decode("ascii")


def to_bytes(text):
    return base64.b64decode(text)


class End:
    """One end of a connection, and the commands for it in the order in which they came."""

    def __init__(self, name):
        self.name = name
        self.stopped = False
        self.options = {}
        self.tasks = set()
        self.commands = asyncio.Queue()
        self.begin(self.obey())

    def tell(self, event, **fields):
        if self.stopped:
            return
        print(json.dumps({"end": self.name, "event": event, **fields}), flush=True)

    def begin(self, coroutine):
        """Runs something beside the commands; what it raises must not go unseen."""
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.tell("failed", message=repr(task.exception()))

    async def obey(self):
        while True:
            command = await self.commands.get()
            name = command.pop("do")
            self.stopped = name == "stop"
            try:
                if name in ("listen", "connect"):
                    self.options = command
                    await getattr(self, name)()
                else:
                    await getattr(self, name)(**command)
            except Exception as error:
                self.tell("failed", message=repr(error))
            if self.stopped:
                return

    @property
    def headers(self):
        return [tuple(field) for field in self.options.get("headers", [])]

    @property
    def server_context(self):
        if "tls" not in self.options:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.options["tls"]["cert"], self.options["tls"]["key"])
        return context

    @property
    def client_context(self):
        if "ca" not in self.options:
            return None
        return ssl.create_default_context(cafile=self.options["ca"])

    @property
    def protocols(self):
        return self.options.get("protocols", [])


async def main(end_class, version):
    told = f"{version}, Python {platform.python_version()}"
    print(json.dumps({"event": "version", "version": told}), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ends = {}
    while line := await reader.readline():
        command = json.loads(line)
        name = command.pop("end")
        if name not in ends:
            ends[name] = end_class(name)
        ends[name].commands.put_nowait(command)
        if command["do"] == "stop":
            del ends[name]


def run(end_class, version):
    asyncio.run(main(end_class, version))
