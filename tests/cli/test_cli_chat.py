"""`headway chat`, from a pipe and at a real terminal."""

from __future__ import annotations

import os
import pty
import time
from typing import TYPE_CHECKING

from headway.core.errors import ContextTooLong, Overloaded
from headway.tests.client.support.scripted_inference import ScriptedInference, refuse

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command


def said(servicer: ScriptedInference, turn: int) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in servicer.chats[turn].messages]


def test_piped_lines_are_turns_of_one_conversation(headway: Command, servicer: ScriptedInference) -> None:
    done = headway("chat", "-n", "2", "--system", "Be brief.", stdin="Hi\n\nAnd you?\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "w0 w1 \nw0 w1 \n", "")
    assert said(servicer, 1) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "w0 w1 "),
        ("user", "And you?"),
    ]


def test_an_error_in_a_pipe_ends_the_command(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Overloaded("queues are full"))]
    done = headway("chat", stdin="Hi\nAnd you?\n")
    assert done.returncode == 1 and "queues are full" in done.stderr and len(servicer.chats) == 1


class Terminal:
    """The command on a pseudo-terminal."""

    def __init__(self, headway: Command, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        env = headway.env | {"TERM": "xterm"}
        headway.env = env
        self.child = headway.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.seen = ""

    def expect(self, text: str) -> None:
        """Reads until `text` comes after what was expected before."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            self.seen += os.read(self._ours, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> int:
        code = self.child.wait(60)
        os.close(self._ours)
        return code


def test_a_conversation_at_a_terminal(headway: Command, servicer: ScriptedInference) -> None:
    terminal = Terminal(headway, "chat", "-n", "3")
    terminal.expect("scripted at")
    terminal.expect("> ")
    terminal.type("Hello\n")
    terminal.expect("w0 w1 w2 ")
    terminal.expect("3 tokens · first token after 5 ms")
    servicer.script = [refuse(ContextTooLong("the conversation has 2000 tokens, the context 1024"))]
    terminal.type("Too long\n")
    terminal.expect("the conversation has 2000 tokens")
    terminal.expect("/reset begins again")
    terminal.type("Once more\n")
    terminal.expect("3 tokens")
    # What failed left no trace in the conversation.
    assert said(servicer, 2) == [("user", "Hello"), ("assistant", "w0 w1 w2 "), ("user", "Once more")]
    terminal.type("/system Be kind.\n")
    terminal.expect("Begun again")
    terminal.type("/what\n")
    terminal.expect("/reset")
    terminal.type("Hi\n")
    terminal.expect("3 tokens")
    assert said(servicer, 3) == [("system", "Be kind."), ("user", "Hi")]
    # Before the prompt the terminal itself would take this for an end of file, and forget it when the prompt comes.
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.close() == 0


def test_an_interrupt_stops_the_reply_and_not_the_conversation(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [servicer.hang]
    terminal = Terminal(headway, "chat", "-n", "1")
    terminal.expect("> ")
    terminal.type("Hello\n")
    terminal.expect("w0 ")
    terminal.child.send_signal(2)
    terminal.expect("> ")
    assert servicer.cancelled.wait(10)
    terminal.type("Again\n")
    terminal.expect("1 tokens")
    assert said(servicer, 1) == [("user", "Hello"), ("assistant", "w0 "), ("user", "Again")]
    terminal.type("/quit\n")
    assert terminal.close() == 0
