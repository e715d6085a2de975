"""How many answers without an end there may be."""

from contextlib import ExitStack

from shop_gateway.gateway import STREAMS_OF_ACCOUNT, Streams


def test_one_account_leaves_room_for_others_until_there_is_none() -> None:
    streams = Streams(STREAMS_OF_ACCOUNT + 1)
    with ExitStack() as stack:
        for _ in range(STREAMS_OF_ACCOUNT):
            assert not streams.is_full("ada")
            stack.enter_context(streams.one_of("ada"))
        assert streams.is_full("ada")
        assert not streams.is_full("eve")
        with streams.one_of("eve"):
            assert streams.is_full("bob")
    assert streams.open == 0
    assert not streams.is_full("ada")
