"""A hotel and an airline in one process: plain gRPC with reflection, nothing of Amends. The tutorial runs it:
`.venv/bin/python examples/own-services/server.py [PORT]`.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, str(Path(__file__).parent))  # where the next line looks for the file
messages, services = grpc.protos_and_services("trips.proto")


class Hotel(services.HotelServiceServicer):  # type: ignore[misc, name-defined]
    """Has a room for everybody."""

    def __init__(self) -> None:
        self.rooms: dict[str, str] = {}

    async def Book(self, request: Any, context: Any) -> Any:
        """Take a room; the same trip again takes the same one."""
        self.rooms[request.trip_id] = f"room {len(request.city)} in {request.city}"
        print(f"hotel:  booked {self.rooms[request.trip_id]} for {request.trip_id}", flush=True)
        return messages.BookRoomResponse(room=self.rooms[request.trip_id])

    async def Cancel(self, request: Any, context: Any) -> Any:
        """Give a room back, if there is one."""
        print(f"hotel:  cancelled {self.rooms.pop(request.trip_id, 'nothing')} for {request.trip_id}", flush=True)
        return messages.CancelRoomResponse()


class Airline(services.FlightServiceServicer):  # type: ignore[misc, name-defined]
    """Does not fly to Atlantis."""

    async def Book(self, request: Any, context: Any) -> Any:
        """Take a seat, or refuse."""
        if request.city == "Atlantis":
            print(f"flight: refused {request.trip_id}", flush=True)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "we do not fly to Atlantis")
        print(f"flight: booked {request.trip_id}", flush=True)
        return messages.BookFlightResponse(seat="12A")


async def main(port: int) -> None:
    """Serve until interrupted."""
    server = grpc.aio.server()
    services.add_HotelServiceServicer_to_server(Hotel(), server)
    services.add_FlightServiceServicer_to_server(Airline(), server)
    names = ("trips.v1.HotelService", "trips.v1.FlightService", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"hotel and airline listen on 127.0.0.1:{bound}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50051))
