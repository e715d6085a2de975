"""What several forms have in common."""

from dataclasses import dataclass

from shop.types.v1.types_pb2 import Address
from shop_gateway.pages.visit import Visit
from shop_gateway.problems import problem

ADDRESS = ("recipient", "street", "city", "postal_code", "country")
"""The fields of an address."""

SENTENCES = {
    "ADDRESS_INVALID": "The address is not complete, or has something in it that no label can show.",
    "BUSY": "Too many people sign in at the moment. Please try again soon.",
    "CARD_INVALID": "This cannot be the token of a card.",
    "CREDENTIALS_WRONG": "The e-mail address or the password is wrong.",
    "EMAIL_ADDRESS_INVALID": "This is no e-mail address.",
    "NAME_INVALID": "This name cannot be written down.",
    "PASSWORD_INVALID": "A password has 12 to 128 characters.",
    "PRICE_UNKNOWN": "An article in your basket is not sold at the moment.",
    "TOO_MANY_ATTEMPTS": "There were too many attempts. Please wait a while.",
}
"""What a person is told, by the reason for which a service refuses."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Why a form was not taken."""

    reason: str
    text: str
    status: int


NO_MISTAKE = Mistake("", "", 200)


def mistake_in(error: Exception) -> Mistake:
    """Return what a person is told about a form that a service did not take, or could not."""
    told = problem(error)
    return Mistake(told.reason, SENTENCES.get(told.reason, told.detail), told.status)


def address_in(visit: Visit) -> Address:
    """Return the address that was typed; whether it is one is for the services to say."""
    typed = {name: visit.field(name) for name in ADDRESS}
    return Address(**{**typed, "country": typed["country"].upper()})


def number(text: str) -> int | None:
    """Return a number of at most three digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else None


def local(path: str) -> str:
    """Return the path if it is one of this site, else the path of the account: nobody is led elsewhere."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/account"
