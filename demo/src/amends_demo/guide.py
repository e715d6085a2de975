"""The commands to try on a running shop, as lines to copy. Called by `up`."""

from rich.console import Console

from amends_demo.place import ShopFolder
from amends_demo.stack import MAIL_CATCHER

ORDER = "examples/place-order/place-order.json"
START = "examples/place-order/start-run.json"
SIGN_IN = "examples/people/sign-in.json"


def show(place: ShopFolder, console: Console) -> None:
    """Print the commands to try on a running shop."""
    for line in lines(place):
        console.print(line, markup=False, soft_wrap=True)


def lines(place: ShopFolder) -> list[str]:
    """Return the lines, with this machine's addresses; the files are in the checkout."""
    state = place.read_state()
    processes, folder = state["processes"], state.get("certificates")
    grpcurl, amends = "grpcurl -plaintext", ".venv/bin/amends"
    if folder:
        grpcurl = f"grpcurl -cacert {folder}/ca.crt -cert {folder}/tls.crt -key {folder}/tls.key"
        amends = f"AMENDS_TLS_DIR={folder} .venv/bin/amends"
    orders, orchestrator = processes["orders"]["address"], processes["orchestrator-1"]["address"]
    people = []
    if "identity" in processes:
        identity, keys = processes["identity"]["address"], processes["identity"]["keys"]
        shop = f"http://{processes['gateway']['shop']}"
        people = [
            "The shop, for people and for programs:",
            f"  {shop}/",
            f"  curl {shop}/v1/",
            "",
            "An account, a token for it, and the keys by which services check the token:",
            f"  {grpcurl} -d @ {identity} shop.identity.v1.IdentityService/SignUp < {SIGN_IN}",
            f"  {grpcurl} -d @ {identity} shop.identity.v1.IdentityService/SignIn < {SIGN_IN}",
            f"  curl http://{keys}/.well-known/jwks.json",
            "",
            "What customers were written; nothing is delivered to anybody. The customer of the order above is ada:",
            f"  {processes[MAIL_CATCHER]['page']}",
            "",
        ]
    return [
        "",
        "What the services offer:",
        f"  {grpcurl} {orders} list",
        f"  {grpcurl} {orders} describe shop.orders.v1.OrderService",
        "",
        "An order (cards: tok_visa, tok_chargeDeclined, tok_insufficientFunds, tok_processingError, tok_slow):",
        f"  {grpcurl} -d @ {orders} shop.orders.v1.OrderService/PlaceOrder < {ORDER}",
        "",
        "A run without an order, undone because the card is declined. With a card that is accepted it is PARKED at",
        "`confirm`, because there is no order to confirm: PlaceOrder makes both.",
        f"  {grpcurl} -d @ {orchestrator} amends.saga.v1.RunService/StartRun < {START}",
        "",
        "The runs, with the command line, which finds the address by itself in this folder:",
        f"  {amends} list",
        f"  {amends} get --namespace shop --key mine-1",
        f"  {amends} watch RUN                             (a RUN of the list)",
        "",
        'Orders by events, which have no run (put "fulfilment": "FULFILMENT_CHOREOGRAPHED" into the order):',
        f"  {amends} flows                                 (where each stands, late ones first; with a KEY its events)",
        "",
        *people,
        "make audit checks the books, make logs follows the logs (ARGS=payments: of one process),",
        "make status shows the ports, make down stops everything.",
    ]
