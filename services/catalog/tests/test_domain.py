"""The rules of the catalogue, without a database."""

import xml.etree.ElementTree as ElementTree

import pytest
from shop_catalog import domain
from shop_catalog.domain import Article, ArticleInvalid, Description, Money, PriceInvalid
from shop_catalog.pictures import picture


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "two\nlines", "\x00"])
def test_a_name_that_nobody_can_read_is_refused(name):
    with pytest.raises(ArticleInvalid, match="name"):
        domain.description(name, "", "tea")


@pytest.mark.parametrize("text", ["x" * 5001, "bell \x07", "\x00"])
def test_a_description_that_nobody_can_read_is_refused(text):
    with pytest.raises(ArticleInvalid, match="description"):
        domain.description("Assam", text, "tea")


def test_a_description_may_have_lines_and_any_language():
    told = domain.description("Assam – 阿萨姆", "Kräftig.\nZwei Aufgüsse.", "tea")
    assert told == Description("Assam – 阿萨姆", "Kräftig.\nZwei Aufgüsse.", "tea")


@pytest.mark.parametrize("category", ["", "Tea", "a b", "x" * 41, "-tea", "täa"])
def test_a_category_that_no_address_can_have_is_refused(category):
    with pytest.raises(ArticleInvalid, match="category"):
        domain.category_name(category)


@pytest.mark.parametrize(
    "price", [Money("EUR", 0), Money("EUR", -1), Money("eur", 5), Money("", 5), Money("EUR", domain.MAX_MINOR + 1)]
)
def test_a_price_that_nobody_pays_is_refused(price):
    with pytest.raises(PriceInvalid):
        domain.price(price)


def test_a_picture_is_the_same_each_time_and_holds_nothing_that_a_page_would_run():
    article = Article("tea-1", Description("<script>alert(1)</script> & Söhne", "", "tea"), None, False, 1)
    drawn = picture(article)
    assert drawn == picture(article)
    root = ElementTree.fromstring(drawn)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == "<script>alert(1)</script> & Söhne"
    assert not [one for one in root.iter() if "script" in one.tag or "href" in str(one.attrib)]


@pytest.mark.parametrize("category", ["tea", "coffee", "mugs", "books"])
def test_every_category_has_a_picture(category):
    ElementTree.fromstring(picture(Article("a", Description("A", "", category), None, False, 1)))
