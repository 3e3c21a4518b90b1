"""The measured process with the websockets of Debian's python3: an echo server, as server.ts is."""

import asyncio
import os
import sys
import threading
import time

import websockets


async def echo(ws):
    try:
        async for message in ws:
            await ws.send(message)
    except websockets.ConnectionClosedError:
        pass


async def main():
    server = await websockets.serve(
        echo, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Future()


def answer():
    for _ in sys.stdin:
        print(int(time.process_time() * 1e6), flush=True)
    os._exit(0)


threading.Thread(target=answer, daemon=True).start()
asyncio.run(main())
