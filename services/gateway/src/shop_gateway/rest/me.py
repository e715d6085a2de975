"""What the shop keeps about whoever asks: account, profile, addresses, cards, consents, messages."""

from shop.customers.v1 import customers_pb2
from shop.identity.v1 import identity_pb2
from shop.marketing.v1 import marketing_pb2
from shop.notifications.v1 import notifications_pb2
from shop_gateway.rest.operation import Call, Operation, Parameter, Replies, RestAnswer
from shop_gateway.rest.parameters import IDENTIFIER, IF_MATCH, PAGE_SIZE, PAGE_TOKEN, page_link, part, this_page
from shop_gateway.rest.resource import Links, RequestBody, Resource, link
from shop_gateway.upstreams import WRITE

ACCOUNT = Resource(
    "Account",
    identity_pb2.Account,
    "The account with which one signs in.",
    links=dict.fromkeys(("self", "profile", "addresses", "paymentMethods", "consents", "messages"), "always")
    | {"orders": "always", "close": "always", "signOutEverywhere": "always"},
)
PROFILE = Resource(
    "Profile",
    customers_pb2.Customer,
    "What one has said about oneself.",
    hidden=("delivery_addresses", "payment_methods"),
    links={"self": "always", "change": "always"},
)
ADDRESSES = Resource(
    "Addresses",
    customers_pb2.Customer,
    "Where parcels can go.",
    hidden=("account_id", "version", "name", "email_address", "locale", "billing_address", "payment_methods"),
    links={"self": "always", "put": "always, with the id to fill in"},
)
PAYMENT_METHODS = Resource(
    "PaymentMethods",
    customers_pb2.Customer,
    "What can be charged.",
    hidden=("account_id", "version", "name", "email_address", "locale", "billing_address", "delivery_addresses"),
    links={"self": "always", "put": "always, with the id to fill in"},
)
CONSENTS = Resource(
    "Consents",
    marketing_pb2.ListConsentsResponse,
    "What one agreed to and when, and when no longer; newest first.",
    links={"self": "always", "email": "always"},
)
MESSAGES = Resource(
    "Messages",
    notifications_pb2.ListMessagesResponse,
    "What one was written, newest first.",
    hidden=("next_page_token",),
    links={"self": "always", "next": "when there is another page"},
)
_ADDRESS = {
    "recipient": "Ada Lovelace",
    "street": "Rosenweg 3",
    "city": "Berlin",
    "postalCode": "10115",
    "country": "DE",
}
CHANGE_PROFILE = RequestBody(
    "ChangeProfile",
    customers_pb2.ChangeCustomerRequest,
    "All that one says about oneself; what is left out is removed.",
    ("name",),
    ("email_address", "locale", "billing_address"),
    {"name": "Ada Lovelace", "emailAddress": "ada@example.com", "locale": "en-GB", "billingAddress": _ADDRESS},
)
PUT_ADDRESS = RequestBody(
    "PutAddress",
    customers_pb2.DeliveryAddress,
    "Where parcels can go, and what one calls it.",
    ("label", "address"),
    example={"label": "Home", "address": _ADDRESS},
)
PUT_PAYMENT_METHOD = RequestBody(
    "PutPaymentMethod",
    customers_pb2.PutPaymentMethodRequest,
    "A card, as the payment provider's token, and what one recognises it by.",
    ("payment_method", "card_token"),
    example={"paymentMethod": {"brand": "Visa", "lastFour": "4242"}, "cardToken": "tok_visa"},
)
SET_CONSENT = RequestBody(
    "SetConsent",
    marketing_pb2.SetConsentRequest,
    "Whether one agrees, and to which text.",
    ("granted", "wording"),
    example={"granted": True, "wording": "newsletter-2"},
)
CLOSE_ACCOUNT = RequestBody(
    "CloseAccount", identity_pb2.CloseAccountRequest, "The password, once more.", ("password",),
    example={"password": "correct horse battery"},
)  # fmt: skip


async def _account(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    asked = identity_pb2.GetAccountRequest()
    answer = await identity.ask(identity.stub.GetAccount, asked, token=call.caller.token)
    links: Links = {
        "self": link("/v1/me"),
        "profile": link("/v1/me/profile"),
        "addresses": link("/v1/me/addresses"),
        "paymentMethods": link("/v1/me/payment-methods"),
        "consents": link("/v1/me/consents"),
        "messages": link("/v1/me/messages"),
        "orders": link("/v1/orders"),
        "close": link("/v1/me/close", method="POST"),
        "signOutEverywhere": link("/v1/me/sessions", method="DELETE"),
    }
    return RestAnswer(ACCOUNT.document(answer.account, links))


async def _customer(call: Call) -> customers_pb2.Customer:
    customers = call.gateway.upstreams.customers
    asked = customers_pb2.GetCustomerRequest(account_id=call.caller.subject)
    return (await customers.ask(customers.stub.GetCustomer, asked, token=call.caller.token)).customer


def _profile_of(customer: customers_pb2.Customer) -> RestAnswer:
    """Return a profile, whose entity tag is the version that a change may name."""
    links = {"self": link("/v1/me/profile"), "change": link("/v1/me/profile", method="PUT")}
    return RestAnswer(PROFILE.document(customer, links), headers={"etag": f'"{customer.version}"'})


async def _profile(call: Call) -> RestAnswer:
    return _profile_of(await _customer(call))


async def _change_profile(call: Call) -> RestAnswer:
    request = CHANGE_PROFILE.parse(call.body)
    request.account_id = call.caller.subject
    expected = (call.parameters["If-Match"] or "*").strip('"')
    request.version = 0 if expected == "*" else int(expected)
    customers = call.gateway.upstreams.customers
    answer = await customers.ask(customers.stub.ChangeCustomer, request, token=call.caller.token, within=WRITE)
    return _profile_of(answer.customer)


async def _addresses(call: Call) -> RestAnswer:
    put = link("/v1/me/addresses/{addressId}", method="PUT", templated=True)
    document = ADDRESSES.document(await _customer(call), {"self": link("/v1/me/addresses"), "put": put})
    for one in document["deliveryAddresses"]:
        address = f"/v1/me/addresses/{part(one['deliveryAddressId'])}"
        one["_links"] = {"put": link(address, method="PUT"), "remove": link(address, method="DELETE")}
    return RestAnswer(document)


async def _put_address(call: Call) -> RestAnswer:
    address = PUT_ADDRESS.parse(call.body)
    address.delivery_address_id = call.parameters["addressId"]
    request = customers_pb2.PutDeliveryAddressRequest(account_id=call.caller.subject, delivery_address=address)
    customers = call.gateway.upstreams.customers
    await customers.ask(customers.stub.PutDeliveryAddress, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _remove_address(call: Call) -> RestAnswer:
    request = customers_pb2.RemoveDeliveryAddressRequest(
        account_id=call.caller.subject, delivery_address_id=call.parameters["addressId"]
    )
    customers = call.gateway.upstreams.customers
    await customers.ask(customers.stub.RemoveDeliveryAddress, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _payment_methods(call: Call) -> RestAnswer:
    put = link("/v1/me/payment-methods/{paymentMethodId}", method="PUT", templated=True)
    links = {"self": link("/v1/me/payment-methods"), "put": put}
    document = PAYMENT_METHODS.document(await _customer(call), links)
    for one in document["paymentMethods"]:
        address = f"/v1/me/payment-methods/{part(one['paymentMethodId'])}"
        one["_links"] = {"put": link(address, method="PUT"), "remove": link(address, method="DELETE")}
    return RestAnswer(document)


async def _put_payment_method(call: Call) -> RestAnswer:
    request = PUT_PAYMENT_METHOD.parse(call.body)
    request.account_id = call.caller.subject
    request.payment_method.payment_method_id = call.parameters["paymentMethodId"]
    customers = call.gateway.upstreams.customers
    await customers.ask(customers.stub.PutPaymentMethod, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _remove_payment_method(call: Call) -> RestAnswer:
    request = customers_pb2.RemovePaymentMethodRequest(
        account_id=call.caller.subject, payment_method_id=call.parameters["paymentMethodId"]
    )
    customers = call.gateway.upstreams.customers
    await customers.ask(customers.stub.RemovePaymentMethod, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _consents(call: Call) -> RestAnswer:
    marketing = call.gateway.upstreams.marketing
    asked = marketing_pb2.ListConsentsRequest(account_id=call.caller.subject)
    answer = await marketing.ask(marketing.stub.ListConsents, asked, token=call.caller.token)
    links = {"self": link("/v1/me/consents"), "email": link("/v1/me/consents/email", method="PUT")}
    return RestAnswer(CONSENTS.document(answer, links))


async def _set_consent(call: Call) -> RestAnswer:
    request = SET_CONSENT.parse(call.body)
    request.account_id, request.purpose = call.caller.subject, marketing_pb2.PURPOSE_EMAIL
    marketing = call.gateway.upstreams.marketing
    await marketing.ask(marketing.stub.SetConsent, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _messages(call: Call) -> RestAnswer:
    notifications = call.gateway.upstreams.notifications
    asked = notifications_pb2.ListMessagesRequest(
        customer_id=call.caller.subject,
        page_size=call.parameters["pageSize"] or 0,
        page_token=call.parameters["pageToken"] or "",
    )
    answer = await notifications.ask(notifications.stub.ListMessages, asked, token=call.caller.token)
    links: Links = {"self": link(this_page(call))}
    if answer.next_page_token:
        links["next"] = link(page_link(call, answer.next_page_token))
    return RestAnswer(MESSAGES.document(answer, links))


async def _close(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    request = CLOSE_ACCOUNT.parse(call.body)
    await identity.ask(identity.stub.CloseAccount, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


async def _sign_out_everywhere(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    request = identity_pb2.SignOutEverywhereRequest()
    await identity.ask(identity.stub.SignOutEverywhere, request, token=call.caller.token, within=WRITE)
    return RestAnswer(status=204)


_DONE = (Replies(204, "Done."),)
_ADDRESS_ID = Parameter("addressId", "path", "Chosen by the client.", IDENTIFIER, True, "home")
_PAYMENT_METHOD_ID = Parameter("paymentMethodId", "path", "Chosen by the client.", IDENTIFIER, True, "visa")
_AWAY = (503, 504)
_CUSTOMERS = "shop.customers.v1.CustomerService"
_IDENTITY = "shop.identity.v1.IdentityService"
_VERSION = {"ETag": "The version, for `If-Match` of a change."}

OPERATIONS = (
    Operation(
        "getAccount",
        "GET",
        "/v1/me",
        "Read one's account",
        f"{_IDENTITY}/GetAccount",
        _account,
        (Replies(200, "The account.", ACCOUNT),),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "closeAccount",
        "POST",
        "/v1/me/close",
        "Close one's account for good",
        f"{_IDENTITY}/CloseAccount",
        _close,
        _DONE,
        body=CLOSE_ACCOUNT,
        refusals=_AWAY,
    ),
    Operation(
        "signOutEverywhere",
        "DELETE",
        "/v1/me/sessions",
        "End all of one's sessions",
        f"{_IDENTITY}/SignOutEverywhere",
        _sign_out_everywhere,
        _DONE,
        refusals=_AWAY,
    ),
    Operation(
        "getProfile",
        "GET",
        "/v1/me/profile",
        "Read what one has said about oneself",
        f"{_CUSTOMERS}/GetCustomer",
        _profile,
        (Replies(200, "The profile.", PROFILE, _VERSION),),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "changeProfile",
        "PUT",
        "/v1/me/profile",
        "Replace what one has said about oneself",
        f"{_CUSTOMERS}/ChangeCustomer",
        _change_profile,
        (Replies(200, "The profile as it is now.", PROFILE, _VERSION),),
        (IF_MATCH,),
        CHANGE_PROFILE,
        refusals=(404, 412, *_AWAY),
    ),
    Operation(
        "listAddresses",
        "GET",
        "/v1/me/addresses",
        "List where parcels can go",
        f"{_CUSTOMERS}/GetCustomer",
        _addresses,
        (Replies(200, "The addresses.", ADDRESSES),),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "putAddress",
        "PUT",
        "/v1/me/addresses/{addressId}",
        "Add or replace a delivery address",
        f"{_CUSTOMERS}/PutDeliveryAddress",
        _put_address,
        _DONE,
        (_ADDRESS_ID,),
        PUT_ADDRESS,
        refusals=(404, 409, *_AWAY),
    ),
    Operation(
        "removeAddress",
        "DELETE",
        "/v1/me/addresses/{addressId}",
        "Remove a delivery address",
        f"{_CUSTOMERS}/RemoveDeliveryAddress",
        _remove_address,
        _DONE,
        (_ADDRESS_ID,),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "listPaymentMethods",
        "GET",
        "/v1/me/payment-methods",
        "List what can be charged",
        f"{_CUSTOMERS}/GetCustomer",
        _payment_methods,
        (Replies(200, "The payment methods.", PAYMENT_METHODS),),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "putPaymentMethod",
        "PUT",
        "/v1/me/payment-methods/{paymentMethodId}",
        "Add or replace a payment method",
        f"{_CUSTOMERS}/PutPaymentMethod",
        _put_payment_method,
        _DONE,
        (_PAYMENT_METHOD_ID,),
        PUT_PAYMENT_METHOD,
        refusals=(404, 409, *_AWAY),
    ),
    Operation(
        "removePaymentMethod",
        "DELETE",
        "/v1/me/payment-methods/{paymentMethodId}",
        "Remove a payment method",
        f"{_CUSTOMERS}/RemovePaymentMethod",
        _remove_payment_method,
        _DONE,
        (_PAYMENT_METHOD_ID,),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "listConsents",
        "GET",
        "/v1/me/consents",
        "List what one agreed to",
        "shop.marketing.v1.MarketingService/ListConsents",
        _consents,
        (Replies(200, "The consents.", CONSENTS),),
        refusals=(404, *_AWAY),
    ),
    Operation(
        "setEmailConsent",
        "PUT",
        "/v1/me/consents/email",
        "Agree to campaigns by e-mail, or no longer",
        "shop.marketing.v1.MarketingService/SetConsent",
        _set_consent,
        _DONE,
        body=SET_CONSENT,
        refusals=(404, *_AWAY),
    ),
    Operation(
        "listMessages",
        "GET",
        "/v1/me/messages",
        "List what one was written",
        "shop.notifications.v1.NotificationService/ListMessages",
        _messages,
        (Replies(200, "A page of messages.", MESSAGES),),
        (PAGE_SIZE, PAGE_TOKEN),
        refusals=(404, *_AWAY),
    ),
)
