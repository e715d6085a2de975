"""Texts of the formats that the document names, for schemathesis. Loaded by SCHEMATHESIS_HOOKS."""

import schemathesis
from hypothesis import strategies
from shop_gateway.rest.document import is_email_address, is_line

PRINTABLE = strategies.characters(categories=("L", "N", "P", "S"), include_characters=" ")
schemathesis.openapi.format("line", strategies.text(PRINTABLE, min_size=1, max_size=200).filter(is_line))
schemathesis.openapi.format("email", strategies.emails().filter(is_email_address))
