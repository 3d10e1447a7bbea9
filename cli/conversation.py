"""The loop behind `headway chat`: reads a message, streams the reply, keeps both."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..client import ChatMessage, GenerateOptions, Headway, Usage
from ..core.errors import ContextTooLong, HeadwayError
from .console import next_step, write

HELP = """/reset          forget the conversation
/system TEXT    begin again with this system message
/quit           leave (Ctrl-D too); Ctrl-C stops a reply
"""
BOLD, DIM, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"


class Conversation:
    """The messages so far, and how to ask for the next one."""

    def __init__(self, headway: Headway, chosen: GenerateOptions, system: str | None) -> None:
        self._headway = headway
        self._chosen = chosen
        self.reset(system)

    @property
    def address(self) -> str:
        return self._headway.address

    def reset(self, system: str | None) -> None:
        """Forgets all but the system message."""
        self.system = system
        self.messages = [ChatMessage("system", system)] if system else []

    def say(self, text: str, show: Callable[[str], None]) -> Usage | None:
        """Sends a message and shows the reply as it comes. A failed exchange leaves no trace in the messages; one that
        the user interrupts keeps what was shown, and returns None."""
        asked = [*self.messages, ChatMessage("user", text)]
        parts: list[str] = []
        with self._headway.chat_stream(asked, **self._chosen) as stream:
            try:
                for delta in stream:
                    parts.append(delta.text)
                    show(delta.text)
            except KeyboardInterrupt:
                pass
        self.messages = [*asked, ChatMessage("assistant", "".join(parts))]
        return stream.usage


def converse(conversation: Conversation, model: str, interactive: bool) -> None:
    """Until the input ends. At a terminal errors are shown and the conversation goes on; in a pipe the first one ends
    the command."""
    if not interactive:
        for line in sys.stdin:
            if line.strip():
                conversation.say(line.rstrip("\n"), write)
                write("\n")
        return
    import readline  # noqa: F401 (gives input() its editing and history)

    write(f"{DIM}{model} at {conversation.address}. /help for commands, Ctrl-D to leave.{PLAIN}\n")
    while (line := _ask()) is not None:
        if line.startswith("/"):
            if not _command(conversation, line):
                return
        elif line:
            _exchange(conversation, line)


def _ask() -> str | None:
    """A line from the terminal without the space around it; None at its end."""
    try:
        # The marks \x01 and \x02 tell readline which characters take no room.
        return input(f"\x01{BOLD}\x02> \x01{PLAIN}\x02").strip()
    except KeyboardInterrupt:
        write("\n")
        return ""
    except EOFError:
        write("\n")
        return None


def _exchange(conversation: Conversation, line: str) -> None:
    try:
        usage = conversation.say(line, write)
    except HeadwayError as error:
        advice = "/reset begins again." if isinstance(error, ContextTooLong) else next_step(error, conversation.address)
        write(f"{RED}{error.message}{PLAIN} {advice}\n")
        return
    write("\n" if usage is None else f"\n{DIM}{summary(usage)}{PLAIN}\n")


def summary(usage: Usage) -> str:
    """One line about a reply: the cache's part, the wait, the pace."""
    first = f"first token after {usage.time_to_first_token_s * 1000:.0f} ms"
    rest_s = usage.total_s - usage.time_to_first_token_s
    pace = f" · {(usage.completion_tokens - 1) / rest_s:.0f} tokens/s" if rest_s > 0 else ""
    cached = f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens from cache"
    return f"{usage.completion_tokens} tokens · {first}{pace} · {cached}"


def _command(conversation: Conversation, line: str) -> bool:
    """Runs a /command; False when it was the one to leave."""
    verb, _, rest = line.partition(" ")
    if verb in ("/quit", "/exit"):
        return False
    if verb == "/reset":
        conversation.reset(conversation.system)
        write(f"{DIM}Forgotten.{PLAIN}\n")
    elif verb == "/system" and rest.strip():
        conversation.reset(rest.strip())
        write(f"{DIM}Begun again with that system message.{PLAIN}\n")
    else:
        write(f"{DIM}{HELP}{PLAIN}")
    return True
