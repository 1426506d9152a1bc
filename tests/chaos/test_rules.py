"""Which rule acts on which request."""

from __future__ import annotations

from tests.chaos.rules import Answer, Asked, Delay, Hold, LoseReply, Match, Rule, RuleBoard


def asked(key: str = "t/a", method: str = "PUT", body: bytes = b"") -> Asked:
    return Asked(
        number=1, method=method, key=key, query="", body=body, if_absent=False, client=("", 1)
    )


def test_the_first_rule_that_fits_and_is_not_used_up_acts() -> None:
    board = RuleBoard()
    board.add(Rule(match=Match(method="PUT", key="^t/"), action=Delay(seconds=1), times=2))
    board.add(Rule(match=Match(method="*", key="^t/"), action=LoseReply()))
    actions = [board.action_for(asked()) for _ in range(3)]
    assert actions == [Delay(seconds=1), Delay(seconds=1), LoseReply()]


def test_a_rule_is_for_its_method_key_and_body_alone() -> None:
    board = RuleBoard()
    board.add(Rule(match=Match(method="PUT", key="leases/", body='"sealed":true'), action=Hold()))
    seal = b'{"sealed":true}'
    assert board.action_for(asked("t/leases/1", body=seal)) is not None
    assert board.action_for(asked("t/leases/1", body=b'{"sealed":false}')) is None
    assert board.action_for(asked("t/commits/1", body=seal)) is None
    assert board.action_for(asked("t/leases/1", "GET", seal)) is None


def test_a_share_of_the_requests_is_the_same_for_the_same_seed() -> None:
    def hits(seed: int) -> list[bool]:
        board = RuleBoard(seed)
        slow = Answer(status=503, code="SlowDown")
        board.add(Rule(match=Match(method="*", key=""), action=slow, share=0.3))
        return [board.action_for(asked()) is not None for _ in range(1000)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 200 < sum(hits(1)) < 400


def test_rules_that_are_cleared_let_go_what_they_hold() -> None:
    board, barrier = RuleBoard(), Hold()
    board.add(Rule(match=Match(method="*", key=""), action=barrier))
    assert board.action_for(asked()) is barrier
    board.clear()
    assert board.action_for(asked()) is None
    assert barrier.decided is True


def test_a_request_that_is_sent_again_while_it_is_held_is_held_too() -> None:
    board, barrier = RuleBoard(), Hold()
    board.add(Rule(match=Match(method="PUT", key="^t/"), action=barrier, times=1))
    assert board.action_for(asked(body=b"1")) is barrier
    barrier.catch(asked(body=b"1"))
    assert board.action_for(asked(body=b"2")) is None
    assert board.action_for(asked(body=b"1")) is barrier
    barrier.forward()
    assert board.action_for(asked(body=b"1")) is None
