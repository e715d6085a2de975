"""Resources over REST: what they say, what may be kept of them, and what stands in for a service that is away."""

from amends_testkit.waiting import eventually

from .front import ADDRESS, NOBODY, Front, gateway


async def known(client, me, what: str):
    """A resource of one's own, as soon as the service behind it has heard of the account."""

    async def look():
        answer = await client.get(what, headers=me)
        return answer if answer.status_code == 200 else None

    found = await eventually(look, what=f"{what} is there")
    assert found is not None
    return found


async def priced(client, sku: str) -> None:
    """Return when orders has heard what an article is called and costs."""

    async def look() -> bool:
        articles = (await client.get("/v1/articles")).json()["articles"]
        return any(one["sku"] == sku and one["name"] and "price" in one for one in articles)

    await eventually(look, what=f"{sku} has a name and a price")


async def test_an_article_is_sent_once_to_who_keeps_it(client, front: Front):
    first = await client.get("/v1/articles/mug")
    assert first.json()["name"] == "Blue mug"
    assert first.json()["price"] == {"currency": "EUR", "minor": "900"}
    again = await client.get("/v1/articles/mug", headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    changed = await client.get("/v1/articles/mug", headers={"if-none-match": '"other"'})
    assert changed.status_code == 200


async def test_an_answer_for_everybody_is_kept_and_who_wants_another_one_says_so(front: Front):
    async with gateway(**front.settings) as client:
        first = await client.get("/v1/articles/mug")
        kept = await client.get("/v1/articles/mug")
        fresh = await client.get("/v1/articles/mug", headers={"cache-control": "no-cache"})
        has = await client.get("/v1/articles/mug", headers={"if-none-match": first.headers["etag"]})
    assert "age" not in first.headers
    assert "age" in kept.headers
    assert kept.content == first.content == fresh.content
    assert "age" not in fresh.headers
    assert (has.status_code, has.headers["age"]) == (304, kept.headers["age"])


async def test_an_article_whose_name_has_a_slash_is_found_by_its_link(client, front: Front):
    articles = (await client.get("/v1/articles?category=tea")).json()["articles"]
    [address] = [one["_links"]["self"]["href"] for one in articles if one["sku"] == "tea/assam"]
    article = (await client.get(address)).json()
    assert article["sku"] == "tea/assam"
    assert "order" not in article["_links"]  # it has no price


async def test_the_next_page_is_a_link_until_there_is_none(client, front: Front):
    address, names = "/v1/articles?pageSize=1", []
    while address:
        page = (await client.get(address)).json()
        names += [one["name"] for one in page["articles"]]
        address = page["_links"].get("next", {}).get("href")
    assert len(names) == 3
    assert names == sorted(names)
    unknown = await client.get("/v1/articles?pageToken=bm9uZQ==")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "PAGE_INVALID")


async def test_without_catalog_an_article_has_its_name_and_price_and_says_what_is_missing(front: Front):
    async with gateway(**front.settings | {"catalog_target": NOBODY}) as client:
        await priced(client, "mug")
        article = await client.get("/v1/articles/mug")
        page = (await client.get("/v1/articles")).json()
        unknown = await client.get("/v1/articles/nothing")
        picture = await client.get("/v1/articles/mug/picture")
    assert article.json()["degraded"] is True
    assert article.json()["name"] == "Blue mug"
    assert article.json()["_links"]["order"]["href"] == "/v1/orders"
    assert article.headers["cache-control"] == "no-store"
    assert page["degraded"] is True
    assert "mug" in [one["sku"] for one in page["articles"]]
    assert unknown.status_code == 404
    assert picture.status_code == 503


async def test_without_search_the_list_of_catalog_stands_in_and_says_so(client, front: Front):
    found = (await client.get("/v1/search?q=mug&category=mugs")).json()
    assert found["degraded"] is True
    assert [hit["sku"] for hit in found["hits"]] == ["mug"]
    assert found["hits"][0]["_links"]["article"]["href"] == "/v1/articles/mug"


async def test_a_profile_is_changed_only_in_the_version_that_was_seen(client, front: Front):
    me = await front.person(client)
    seen = await known(client, me, "/v1/me/profile")
    change = {"name": "Ada", "billingAddress": ADDRESS}
    for no_version in ('"0"', 'W/"1"', '"a"', ""):
        refused = await client.put("/v1/me/profile", json=change, headers=me | {"if-match": no_version})
        assert refused.status_code == 400, no_version
    match = me | {"if-match": seen.headers["etag"]}
    changed = await client.put("/v1/me/profile", json=change, headers=match)
    assert (changed.status_code, changed.json()["name"]) == (200, "Ada")
    assert changed.headers["etag"] != seen.headers["etag"]
    late = await client.put("/v1/me/profile", json=change | {"name": "Eve"}, headers=match)
    assert late.status_code == 412, (late.text, seen.headers, changed.headers)
    assert late.json()["reason"] == "VERSION_STALE"


async def test_addresses_and_cards_are_put_under_names_of_ones_own(client, front: Front):
    me = await front.person(client)
    await known(client, me, "/v1/me/addresses")
    put = {"label": "Home", "address": ADDRESS}
    card = {"paymentMethod": {"brand": "Visa", "lastFour": "4242"}, "cardToken": "tok_visa"}
    for address, body in (("/v1/me/addresses/home", put), ("/v1/me/payment-methods/visa", card)):
        assert (await client.put(address, json=body, headers=me)).status_code == 204
        assert (await client.put(address, json=body, headers=me)).status_code == 204
    [home] = (await client.get("/v1/me/addresses", headers=me)).json()["deliveryAddresses"]
    [visa] = (await client.get("/v1/me/payment-methods", headers=me)).json()["paymentMethods"]
    assert home["address"] == ADDRESS
    assert "tok_visa" not in str(visa)
    removed = await client.delete(home["_links"]["remove"]["href"], headers=me)
    assert removed.status_code == 204
    assert (await client.get("/v1/me/addresses", headers=me)).json()["deliveryAddresses"] == []


async def test_a_session_goes_on_and_ends(client, front: Front):
    known_by = {"emailAddress": "session@example.com", "password": "correct horse battery"}
    await client.post("/v1/accounts", json=known_by)
    begun = (await client.post("/v1/sessions", json=known_by)).json()
    refresh, sign_out = (begun["_links"][name]["href"] for name in ("refresh", "signOut"))
    gone_on = await client.post(refresh, json={"refreshToken": begun["refreshToken"]})
    newest = gone_on.json()["refreshToken"]
    assert (gone_on.status_code, gone_on.headers["cache-control"]) == (200, "no-store")
    assert (await client.post(sign_out, json={"refreshToken": newest})).status_code == 204
    ended = await client.post(refresh, json={"refreshToken": newest})
    assert (ended.status_code, ended.json()["reason"]) == (401, "SESSION_ENDED")
