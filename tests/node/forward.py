"""Makes ports that listen on the node's loopback reachable by its pods.

    forward.py ADDRESS PORT...
"""

import asyncio
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(address, port):
    async def connected(reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(connected, address, port)
    await server.serve_forever()


async def main():
    await asyncio.gather(*(serve(sys.argv[1], int(port)) for port in sys.argv[2:]))


asyncio.run(main())
