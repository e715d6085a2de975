"""The service as its callers see it: over gRPC, with a real database."""

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from amends_testkit.waiting import eventually
from shop_marketing import api, domain

from shop.marketing.v1 import marketing_pb2 as pb


def consent(account_id="acc-1", granted=True, wording="newsletter-1", purpose=pb.PURPOSE_EMAIL):
    return pb.SetConsentRequest(account_id=account_id, purpose=purpose, granted=granted, wording=wording)


def preferences(frequency=pb.FREQUENCY_ANY, topics=(), account_id="acc-1"):
    wanted = pb.EmailPreferences(frequency=frequency, topics=topics)
    return pb.SetEmailPreferencesRequest(account_id=account_id, email_preferences=wanted)


def campaign(campaign_id="spring", **changes):
    content = {"topic": pb.CAMPAIGN_TOPIC_OFFERS, "audience": pb.AUDIENCE_EVERYBODY, "subject": "Spring", "text": "Tea"}
    return pb.StartCampaignRequest(campaign_id=campaign_id, **(content | changes))


async def customer(service, account_id="acc-1"):
    return (await service.GetCustomer(pb.GetCustomerRequest(account_id=account_id))).customer


async def history(service):
    answer = await service.ListConsents(pb.ListConsentsRequest(account_id="acc-1"))
    return [(one.granted, one.wording) for one in answer.consents]


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain)


def test_every_word_of_the_domain_has_its_place_in_the_contract():
    for numbers, words in (
        (api.PURPOSES, domain.Purpose),
        (api.TOPICS, domain.CampaignTopic),
        (api.FREQUENCIES, domain.Frequency),
        (api.AUDIENCES, domain.Audience),
    ):
        assert set(numbers) == set(words)


async def test_consent_has_a_history_and_what_holds_is_its_end(service):
    for given in (consent(), consent(), consent(wording="newsletter-2"), consent(granted=False)):
        await service.SetConsent(given)
    assert (await customer(service)).agreed_to == []
    await service.SetConsent(consent(granted=False))
    await service.SetConsent(consent(wording="newsletter-3"))
    assert (await customer(service)).agreed_to == [pb.PURPOSE_EMAIL]
    assert await history(service) == [
        (True, "newsletter-3"),
        (False, "newsletter-1"),
        (True, "newsletter-2"),
        (True, "newsletter-1"),
    ]


async def test_nobody_has_agreed_who_was_not_asked(service):
    await service.SetConsent(consent(granted=False))
    assert await history(service) == []
    assert (await customer(service)).agreed_to == []


async def test_preferences_are_read_as_they_were_written(service):
    topics = [pb.CAMPAIGN_TOPIC_OFFERS, pb.CAMPAIGN_TOPIC_NEWS]
    await service.SetEmailPreferences(preferences(pb.FREQUENCY_WEEKLY, topics))
    read = (await customer(service)).email_preferences
    assert (read.frequency, list(read.topics)) == (pb.FREQUENCY_WEEKLY, topics)


async def test_a_campaign_reaches_who_agreed_once_and_is_in_their_history(service):
    await service.SetConsent(consent())
    await service.SetConsent(consent("acc-2"))
    await service.SetConsent(consent("acc-2", granted=False))
    for _ in range(2):
        await service.StartCampaign(campaign())

    async def ended():
        answer = await service.GetCampaign(pb.GetCampaignRequest(campaign_id="spring"))
        return answer if answer.HasField("ended_at") else None

    assert (await eventually(ended)).sent == 1
    sent = (await service.ListSentCampaigns(pb.ListSentCampaignsRequest(account_id="acc-1"))).campaigns
    assert [(one.campaign_id, one.subject) for one in sent] == [("spring", "Spring")]
    sent = (await service.ListSentCampaigns(pb.ListSentCampaignsRequest(account_id="acc-2"))).campaigns
    assert list(sent) == []


async def test_a_campaign_keeps_what_it_was_begun_with(service):
    await service.StartCampaign(campaign())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.StartCampaign(campaign(text="Coffee"))
    assert refusal_of(error.value) == ("ALREADY_EXISTS", "CAMPAIGN_REUSED")


WRONG = [
    ("GetCustomer", pb.GetCustomerRequest(account_id="nobody"), ("NOT_FOUND", "CUSTOMER_UNKNOWN")),
    ("GetCustomer", pb.GetCustomerRequest(), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ("ListConsents", pb.ListConsentsRequest(account_id="nobody"), ("NOT_FOUND", "CUSTOMER_UNKNOWN")),
    ("ListSentCampaigns", pb.ListSentCampaignsRequest(account_id="nobody"), ("NOT_FOUND", "CUSTOMER_UNKNOWN")),
    ("SetConsent", consent(purpose=pb.PURPOSE_UNSPECIFIED), ("INVALID_ARGUMENT", "PURPOSE_INVALID")),
    ("SetConsent", consent(wording=""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ("SetEmailPreferences", preferences(0), ("INVALID_ARGUMENT", "PREFERENCES_INVALID")),
    ("SetEmailPreferences", preferences(topics=[77]), ("INVALID_ARGUMENT", "PREFERENCES_INVALID")),
    ("StartCampaign", campaign(subject=" "), ("INVALID_ARGUMENT", "CAMPAIGN_INVALID")),
    ("StartCampaign", campaign(subject="a\nBcc: b"), ("INVALID_ARGUMENT", "CAMPAIGN_INVALID")),
    ("StartCampaign", campaign(text=""), ("INVALID_ARGUMENT", "CAMPAIGN_INVALID")),
    ("StartCampaign", campaign(text="x" * 20_001), ("INVALID_ARGUMENT", "CAMPAIGN_INVALID")),
    ("StartCampaign", campaign(topic=0), ("INVALID_ARGUMENT", "CAMPAIGN_INVALID")),
    ("GetCampaign", pb.GetCampaignRequest(campaign_id="none"), ("NOT_FOUND", "CAMPAIGN_UNKNOWN")),
]


async def test_what_is_wrong_has_a_code_and_a_reason(service):
    for method, request, expected in WRONG:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await getattr(service, method)(request)
        assert refusal_of(error.value) == expected, f"{method} {request}"
