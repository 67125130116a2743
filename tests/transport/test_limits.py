"""Places under the caps, counted by source."""

from __future__ import annotations

from vagus.transport.limits import Limits, Occupancy


class TestOccupancy:
    def test_one_source_cannot_take_every_place(self) -> None:
        places = Occupancy(Limits(connections=3, connections_per_source=2))
        assert [places.enter("10.0.0.1") for _ in range(3)] == [True, True, False]
        assert places.enter("10.0.0.2")
        assert not places.enter("10.0.0.3")
        assert (len(places), places.turned_away) == (3, 2)
        places.leave("10.0.0.1")
        assert places.enter("10.0.0.3")

    def test_a_whole_ipv6_site_is_one_source_and_mapped_addresses_are_ipv4(self) -> None:
        places = Occupancy(Limits(connections_per_source=2))
        assert places.enter("2001:db8::1")
        assert places.enter("2001:db8::2%eth0")
        assert not places.enter("2001:db8::ffff:3")
        assert places.enter("2001:db8:0:1::1")
        assert places.enter("::ffff:10.0.0.1")
        assert places.enter("10.0.0.1")
        assert not places.enter("10.0.0.1")

    def test_nothing_is_stored_of_sources_that_left(self) -> None:
        places = Occupancy(Limits(connections_per_source=1))
        for number in range(100):
            source = f"10.0.0.{number}"
            places.enter(source)
            places.enter(source)
            places.leave(source)
        assert len(places) == 0
        assert not places._by_source

    def test_deadlines_are_checked_often_enough_for_the_shortest(self) -> None:
        assert Limits(handshake_seconds=0.4).tick_seconds == 0.1
        assert Limits().tick_seconds <= 1
