"""Cases in turn: all of them run, and those that fail are named."""

import inspect

import pytest

from tests.in_turn import in_turn


def test_every_case_runs_and_those_that_fail_are_named(tmp_path):
    seen = []

    @in_turn(("a", "b"), [(1, 2), (3, 4), (5, 6)])
    @in_turn("c", "xy")
    def checked(tmp_path, a, b, c):
        seen.append((tmp_path, a, b, c))
        if a == 3:
            assert c == "x"
        if a == 5:
            with pytest.raises(ValueError, match="never"):
                pass

    assert list(inspect.signature(checked).parameters) == ["tmp_path"]
    with pytest.raises(BaseExceptionGroup, match="2 of 3 cases") as caught:
        checked(tmp_path=tmp_path)
    assert seen == [(tmp_path, a, a + 1, c) for a in (1, 3, 5) for c in "xy"]
    one, both = caught.value.exceptions
    assert (one.__notes__, [each.__notes__ for each in one.exceptions]) == (["a=3, b=4"], [["c='y'"]])
    assert [each.__notes__ for each in both.exceptions] == [["c='x'"], ["c='y'"]]
