"""A hotel with a database and the barrier, nothing else of Amends. The tutorial "Guard a service" makes it:
`python server.py postgresql://... [PORT]`.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import hotel_pb2  # type: ignore[import-not-found]
import hotel_pb2_grpc  # type: ignore[import-not-found]
from amends_barrier import Barrier, connection
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_reflection.v1alpha import reflection

SERVICE = "hotel.v1.HotelService"
TABLE = "CREATE TABLE IF NOT EXISTS room (trip_id text PRIMARY KEY, city text NOT NULL)"


class Hotel(hotel_pb2_grpc.HotelServiceServicer):  # type: ignore[misc]
    """Books rooms. Book and Cancel are guarded: they work on the connection that the barrier gives them."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def Book(self, request: Any, context: Any) -> Any:
        """Take a room."""
        await connection().execute("INSERT INTO room VALUES ($1, $2)", request.trip_id, request.city)
        return hotel_pb2.BookResponse(room=f"a room in {request.city}")

    async def Cancel(self, request: Any, context: Any) -> Any:
        """Give a room back."""
        await connection().execute("DELETE FROM room WHERE trip_id = $1", request.trip_id)
        return hotel_pb2.CancelResponse()

    async def CountRooms(self, request: Any, context: Any) -> Any:
        """Say how many rooms are booked: a read, which needs no barrier."""
        return hotel_pb2.CountRoomsResponse(booked=await self.pool.fetchval("SELECT count(*) FROM room"))


async def main(url: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    async with asyncpg.create_pool(url) as pool:
        await pool.execute(TABLE)
        await pool.execute(Barrier.schema())
        contract = FileDescriptorSet.FromString(Path("hotel.binpb").read_bytes())  # noqa: ASYNC240
        barrier = Barrier.from_descriptors(pool, contract, [SERVICE])
        server = grpc.aio.server(interceptors=[barrier.interceptor()], options=[("grpc.so_reuseport", 0)])
        hotel_pb2_grpc.add_HotelServiceServicer_to_server(Hotel(pool), server)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        print(f"the hotel listens on 127.0.0.1:{bound}", flush=True)
        await stop.wait()
        await server.stop(5)
        await barrier.drain()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50061))
