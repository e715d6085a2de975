"""shop.marketing.v1.MarketingService: parses requests, opens transactions, answers. Assembled by `__main__`."""

from collections.abc import Mapping
from typing import TypeVar

from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import AlreadyExists, DomainError, InvalidArgument, NotFound, answers
from amends_chassis.people import may_see
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context

from shop.marketing.v1 import marketing_pb2 as pb
from shop.marketing.v1 import marketing_pb2_grpc
from shop_marketing import campaigns, domain, store
from shop_marketing.campaigns import Campaigns
from shop_marketing.domain import Audience, CampaignTopic, Customer, EmailPreferences, Frequency, Purpose

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.PurposeInvalid: InvalidArgument,
    domain.PreferencesInvalid: InvalidArgument,
    domain.CampaignInvalid: InvalidArgument,
    domain.CampaignReused: AlreadyExists,
    domain.CampaignUnknown: NotFound,
    domain.CustomerUnknown: NotFound,
}
PURPOSES: Mapping[Purpose, "pb.Purpose.ValueType"] = {Purpose.EMAIL: pb.PURPOSE_EMAIL}
TOPICS: Mapping[CampaignTopic, "pb.CampaignTopic.ValueType"] = {
    CampaignTopic.OFFERS: pb.CAMPAIGN_TOPIC_OFFERS,
    CampaignTopic.ARTICLES: pb.CAMPAIGN_TOPIC_ARTICLES,
    CampaignTopic.NEWS: pb.CAMPAIGN_TOPIC_NEWS,
}
FREQUENCIES: Mapping[Frequency, "pb.Frequency.ValueType"] = {
    Frequency.ANY: pb.FREQUENCY_ANY,
    Frequency.WEEKLY: pb.FREQUENCY_WEEKLY,
    Frequency.MONTHLY: pb.FREQUENCY_MONTHLY,
}
AUDIENCES: Mapping[Audience, "pb.Audience.ValueType"] = {
    Audience.EVERYBODY: pb.AUDIENCE_EVERYBODY,
    Audience.BUYERS: pb.AUDIENCE_BUYERS,
    Audience.NEWCOMERS: pb.AUDIENCE_NEWCOMERS,
}
STAFF = "staff"
"""The role of those who may read about every customer."""
_Value = TypeVar("_Value")


class MarketingService(marketing_pb2_grpc.MarketingServiceServicer):
    """Keeps consent and sends campaigns."""

    def __init__(self, database: Database, sending: Campaigns) -> None:
        self._database = database
        self._sending = sending

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Context) -> pb.GetCustomerResponse:
        """Read a customer."""
        with answers(ERRORS):
            account_id = _own(request.account_id, STAFF)
            async with self._database.transaction() as transaction:
                customer = await store.customer_of(transaction, account_id)
        return pb.GetCustomerResponse(customer=_customer(customer))

    async def SetConsent(self, request: pb.SetConsentRequest, context: Context) -> pb.SetConsentResponse:
        """Write down that a customer agrees to something, or no longer does."""
        with answers(ERRORS):
            account_id = _own(request.account_id)
            given = domain.consent(_asked(PURPOSES, request.purpose), request.granted, request.wording)
            async with self._database.transaction() as transaction:
                await store.set_consent(transaction, account_id, given)
        return pb.SetConsentResponse()

    async def ListConsents(self, request: pb.ListConsentsRequest, context: Context) -> pb.ListConsentsResponse:
        """Read what a customer agreed to and when."""
        with answers(ERRORS):
            account_id = _own(request.account_id, STAFF)
            async with self._database.transaction() as transaction:
                given = await store.consents_of(transaction, account_id)
        return pb.ListConsentsResponse(
            consents=[
                pb.Consent(purpose=PURPOSES[one.purpose], granted=one.granted, wording=one.wording, at=timestamp(at))
                for one, at in given
            ]
        )

    async def SetEmailPreferences(
        self, request: pb.SetEmailPreferencesRequest, context: Context
    ) -> pb.SetEmailPreferencesResponse:
        """Replace how a customer wants to be written to."""
        with answers(ERRORS):
            account_id, asked = _own(request.account_id), request.email_preferences
            wanted = domain.email_preferences(
                _asked(FREQUENCIES, asked.frequency), (_asked(TOPICS, topic) for topic in asked.topics)
            )
            async with self._database.transaction() as transaction:
                await store.set_email_preferences(transaction, account_id, wanted)
        return pb.SetEmailPreferencesResponse()

    async def ListSentCampaigns(
        self, request: pb.ListSentCampaignsRequest, context: Context
    ) -> pb.ListSentCampaignsResponse:
        """Read which campaigns a customer was sent."""
        with answers(ERRORS):
            account_id = _own(request.account_id, STAFF)
            async with self._database.transaction() as transaction:
                sent = await store.campaigns_sent_to(transaction, account_id)
        return pb.ListSentCampaignsResponse(
            campaigns=[
                pb.SentCampaign(campaign_id=campaign_id, subject=subject, sent_at=timestamp(at))
                for campaign_id, subject, at in sent
            ]
        )

    async def StartCampaign(self, request: pb.StartCampaignRequest, context: Context) -> pb.StartCampaignResponse:
        """Begin a campaign, which is sent in the background."""
        with answers(ERRORS):
            wanted = domain.campaign(
                request.campaign_id,
                _asked(TOPICS, request.topic),
                _asked(AUDIENCES, request.audience),
                request.subject,
                request.text,
            )
            async with self._database.transaction() as transaction:
                await campaigns.start(transaction, wanted)
        self._sending.wake()
        return pb.StartCampaignResponse()

    async def GetCampaign(self, request: pb.GetCampaignRequest, context: Context) -> pb.GetCampaignResponse:
        """Read how far a campaign is."""
        with answers(ERRORS):
            campaign_id = identifier(request.campaign_id, "campaign_id")
            async with self._database.transaction() as transaction:
                found = await campaigns.progress(transaction, campaign_id)
        return pb.GetCampaignResponse(
            campaign_id=found.campaign_id,
            subject=found.subject,
            sent=found.sent,
            started_at=timestamp(found.started_at),
            ended_at=None if found.ended_at is None else timestamp(found.ended_at),
        )


def _own(account_id: str, *roles: str) -> str:
    """Return the account of a request, if it is the caller's or they have one of `roles`. Raises CustomerUnknown."""
    identifier(account_id, "account_id")
    if not may_see(account_id, *roles):
        raise domain.CustomerUnknown(f"account {account_id} has no customer")
    return account_id


def _customer(customer: Customer) -> pb.Customer:
    at = customer.last_ordered_at
    return pb.Customer(
        account_id=customer.account_id,
        agreed_to=sorted(PURPOSES[purpose] for purpose in customer.agreed_to),
        email_preferences=_preferences(customer.email_preferences),
        orders=customer.orders,
        last_ordered_at=None if at is None else timestamp(at),
    )


def _preferences(preferences: EmailPreferences) -> pb.EmailPreferences:
    return pb.EmailPreferences(
        frequency=FREQUENCIES[preferences.frequency],
        topics=sorted(TOPICS[topic] for topic in preferences.topics),
    )


def _asked(numbers: Mapping[_Value, int], number: int) -> _Value | None:
    """Return what a number stands for in the contract; None when it stands for nothing."""
    return next((value for value, one in numbers.items() if one == number), None)
