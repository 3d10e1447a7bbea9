"""Stop strings: the verdict of a plain reading of the whole text, however it is cut, and no character later."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway.router.text.stops import StopMatcher, StopStrings

words = st.text(alphabet="ab\n", min_size=1, max_size=4)


def plain(text: str, stops: list[str]) -> tuple[str | None, int]:
    """The stop string that ends first (the longest of those), and where it ends; by brute force."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return max(ending, key=len), end
    return None, len(text)


@given(
    stops=st.lists(words, min_size=1, max_size=4), pieces=st.lists(st.text("abc\n", max_size=5)), include=st.booleans()
)
def test_the_cut_of_the_text_does_not_matter(stops: list[str], pieces: list[str], include: bool) -> None:
    text = "".join(pieces)
    matched, end = plain(text, stops)
    matcher = StopMatcher(StopStrings(stops), include)
    shown = ""
    for piece in pieces:
        shown += matcher.feed(piece)
        if matcher.matched is not None:
            break
    else:
        shown += matcher.flush()
    assert matcher.matched == matched
    assert shown == text[: end if include or matched is None else end - len(matched)]


@given(stops=st.lists(words, min_size=1, max_size=4), text=st.text("abc\n", max_size=30))
def test_no_more_is_held_back_than_could_become_a_stop_string(stops: list[str], text: str) -> None:
    matcher = StopMatcher(StopStrings(stops), include=False)
    shown = fed = ""
    for character in text:
        shown += matcher.feed(character)
        fed += character
        if matcher.matched is not None:
            return
        held = fed[len(shown) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
        assert not any(stop.startswith(fed[start:]) for start in range(len(shown)) for stop in stops)


def test_a_stop_string_across_pieces_is_never_shown() -> None:
    matcher = StopMatcher(StopStrings(["<end>"]), include=False)
    assert [matcher.feed(piece) for piece in ("text <", "en", "d", "> more")] == ["text ", "", "", ""]
    assert matcher.matched == "<end>"


def test_what_only_looked_like_a_stop_string_is_given_back() -> None:
    matcher = StopMatcher(StopStrings(["<end>"]), include=False)
    assert [matcher.feed(piece) for piece in ("<en", "x")] == ["", "<enx"]
    assert matcher.feed("a<") == "a"
    assert matcher.flush() == "<"


def test_characters_with_a_meaning_in_patterns_are_plain_text() -> None:
    for stop in ("]", "^", "\\", "-", "[a", ".*"):
        matcher = StopMatcher(StopStrings([stop]), include=True)
        assert matcher.feed(f"xy{stop}z") == f"xy{stop}"
        assert matcher.matched == stop
