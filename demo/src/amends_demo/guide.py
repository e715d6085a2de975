"""What to try when the shop runs: lines to copy. Called by `up`."""

from rich.console import Console

from amends_demo.place import Place

ORDER = (
    '{"order_id": "mine-1", "customer_id": "me", "lines": [{"sku": "tea-assam", "quantity": 2}],'
    ' "card_token": "tok_visa", "wait": true, "address": {"recipient": "Me", "street": "Rosenweg 3",'
    ' "city": "Berlin", "postal_code": "10115", "country": "DE"}}'
)
INPUT = (
    '{"orderId": "mine-2", "customerId": "me", "lines": [{"sku": "mug-blue", "quantity": 1}],'
    ' "total": {"currency": "EUR", "minor": "900"}, "cardToken": "tok_chargeDeclined", "address": {"recipient": "Me",'
    ' "street": "Rosenweg 3", "city": "Berlin", "postalCode": "10115", "country": "DE"}}'
)


def show(place: Place, console: Console) -> None:
    """Prints the lines."""
    for line in lines(place):
        console.print(line, markup=False, soft_wrap=True)


def lines(place: Place) -> list[str]:
    """The lines, with this machine's addresses."""
    processes = place.read_state()["processes"]
    orders, orchestrator = processes["orders"]["address"], processes["orchestrator-1"]["address"]
    start = (
        f'{{"namespace": "shop", "saga": "place-order", "idempotency_key": "mine-2", "wait": true, "json": {INPUT}}}'
    )
    return [
        "",
        "What the services offer:",
        f"  grpcurl -plaintext {orders} list",
        f"  grpcurl -plaintext {orders} describe shop.orders.v1.OrderService",
        "",
        "An order (cards: tok_visa, tok_chargeDeclined, tok_insufficientFunds, tok_processingError, tok_slow):",
        f"  grpcurl -plaintext -d '{ORDER}' {orders} shop.orders.v1.OrderService/PlaceOrder",
        "",
        "A saga of its own, undone because the card is declined; then the run of the order, and a timeline:",
        f"  grpcurl -plaintext -d '{start}' {orchestrator} amends.saga.v1.RunService/StartRun",
        f'  grpcurl -plaintext -d \'{{"namespace": "shop", "idempotency_key": "mine-1"}}\' {orchestrator}'
        " amends.saga.v1.RunService/GetRun",
        f'  grpcurl -plaintext -d \'{{"run_id": "RUN"}}\' {orchestrator} amends.saga.v1.RunService/WatchRun',
        "",
        "The same with the command line, which finds the address by itself in this folder:",
        "  .venv/bin/amends list",
        "  .venv/bin/amends get --namespace shop --key mine-1",
        "  .venv/bin/amends watch RUN",
        "",
        "make logs follows the logs, make status shows the ports, make down stops everything.",
    ]
