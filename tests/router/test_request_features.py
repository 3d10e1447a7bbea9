"""What shapes a request's output reaches the replica, also the one that goes on with it; sequences stay together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from rig import Rig, eventually, request, tokens_of
from scripted_engine import ScriptedEngine, expected_tokens, logprob_of

from headway.core.constraints import Grammar, TokenRules
from headway.core.errors import AlreadyExists, DeadlineExceeded, HeadwayError, Internal, InvalidRequest
from headway.core.wire import grammar_from_proto
from headway.proto.headway.v1 import engine_pb2, sampling_pb2

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
PROMPT = [1, 2, 3, 4, 5]
RULES = TokenRules(logit_bias=((7, -1.5), (9, 100.0)), allowed=(4, 5, 6), bad_words=((1, 2), (3,)), min_new_tokens=3)
GRAMMARS = [
    Grammar("json_schema", '{"type": "object"}'),
    Grammar("json_object"),
    Grammar("regex", "a+"),
    Grammar("choice", choices=("yes", "no")),
    Grammar("ebnf", "root ::= [a]"),
]


def shape(submit: engine_pb2.Submit) -> engine_pb2.Submit:
    """What must be the same on every replica that a request sees."""
    left = engine_pb2.Submit()
    left.CopyFrom(submit)
    for name in ("id", "token_ids", "delivered", "time_left", "prompt_logprobs"):
        left.ClearField(name)
    return left


async def on_one_of(engines: list[ScriptedEngine]) -> ScriptedEngine:
    await eventually(lambda: any(engine.running for engine in engines))
    return next(engine for engine in engines if engine.running)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
async def test_all_that_was_asked_for_is_submitted(rig: Rig, new_engine: NewEngine, grammar: Grammar) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    deadline = asyncio.get_running_loop().time() + 100
    await rig.run(
        request(
            count=2, rules=RULES, grammar=grammar, logprobs=0, prompt_logprobs=2, priority=-5, deadline=deadline,
            stop_token_ids=(11,),
        )
    )  # fmt: skip
    (submit,) = engine.submits
    assert dict(submit.logit_bias) == {7: -1.5, 9: 100.0}
    assert list(submit.allowed_token_ids) == [4, 5, 6]
    assert [list(word.ids) for word in submit.bad_words] == [[1, 2], [3]]
    assert (submit.min_new_tokens, submit.priority, list(submit.stop_token_ids)) == (3, -5, [11])
    assert (submit.HasField("logprobs"), submit.logprobs, submit.prompt_logprobs) == (True, 0, 2)
    assert grammar_from_proto(submit.grammar) == grammar
    assert 90 < submit.time_left.ToTimedelta().total_seconds() <= 100


async def test_what_was_not_asked_for_stays_unset(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    chunks = await rig.run(request(count=2))
    (submit,) = engine.submits
    assert not any(map(submit.HasField, ("grammar", "logprobs", "prompt_logprobs", "time_left")))
    assert not any(chunk.logprobs or chunk.prompt_logprobs for chunk in chunks)


async def test_the_continuation_has_the_same_shape_and_keeps_log_probabilities(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(name, step_s=0.01) for name in ("a", "b")]
    await rig.connect(*engines)
    loop = asyncio.get_running_loop()
    wanted = request(
        count=40, rules=RULES, grammar=GRAMMARS[0], logprobs=2, prompt_logprobs=1, priority=7, sequence=0,
        deadline=loop.time() + 50,
    )  # fmt: skip
    task = asyncio.create_task(rig.run(wanted))
    dead = await on_one_of(engines)
    await asyncio.sleep(0.1)
    await dead.die()
    chunks = await task
    tokens = expected_tokens(PROMPT, 7, 40)
    assert tokens_of(chunks) == tokens
    assert [place.entries for chunk in chunks for place in chunk.logprobs] == [
        ((token, logprob_of(token)), (0, 0.0), (1, logprob_of(1))) for token in tokens
    ]
    assert [place.entries[0][0] for place in chunks[0].prompt_logprobs] == PROMPT[1:]
    assert not any(chunk.prompt_logprobs for chunk in chunks[1:])
    first, second = dead.submits[0], engines[1 - engines.index(dead)].submits[0]
    assert shape(first) == shape(second) and second.delivered
    assert first.HasField("prompt_logprobs") and not second.HasField("prompt_logprobs")
    assert second.time_left.ToNanoseconds() < first.time_left.ToNanoseconds()


async def test_prompt_log_probabilities_are_asked_again_while_nothing_came(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(name) for name in ("a", "b")]
    for engine in engines:
        engine.hold = True
    await rig.connect(*engines)
    task = asyncio.create_task(rig.run(request(count=2, prompt_logprobs=0)))
    dead = await on_one_of(engines)
    other = engines[1 - engines.index(dead)]
    other.hold = False
    await dead.die()
    chunks = await task
    assert other.submits[0].HasField("prompt_logprobs")
    assert len(chunks[0].prompt_logprobs) == len(PROMPT) - 1


async def test_a_replica_that_leaves_log_probabilities_out_is_not_believed(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.say_logprobs = False
    await rig.connect(engine)
    with pytest.raises(Internal):
        await rig.run(request(logprobs=1))


async def test_nor_is_one_that_leaves_them_out_later(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    with pytest.raises(Internal, match="0 log probabilities for 1 tokens"):
        async for chunk in rig.dispatcher.stream(request(count=500, logprobs=1)):
            assert len(chunk.logprobs) == len(chunk.token_ids)
            engine.say_logprobs = False


async def test_sequences_share_a_replica_and_each_survives_its_death(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(name, step_s=0.01) for name in ("a", "b", "c")]
    await rig.connect(*engines)
    tasks = [asyncio.create_task(rig.run(request(count=60, sequence=number))) for number in range(4)]
    dead = await on_one_of(engines)
    await eventually(lambda: dead.running == 4)
    assert rig.dispatcher.live_requests == 4
    with pytest.raises(AlreadyExists):
        await rig.run(request())
    await asyncio.sleep(0.1)
    await dead.die()
    for number, task in enumerate(tasks):
        assert tokens_of(await task) == expected_tokens(PROMPT, 7, 60, number)
    assert rig.dispatcher.live_requests == 0
    after = [submit.sequence for engine in engines if engine is not dead for submit in engine.submits]
    assert sorted(after) == [0, 1, 2, 3]


async def test_abort_ends_all_sequences(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine(step_s=0.01)
    await rig.connect(engine)
    tasks = [asyncio.create_task(rig.run(request("mine", count=900, sequence=number))) for number in range(3)]
    await eventually(lambda: engine.running == 3)
    assert rig.dispatcher.abort("mine")
    for task in tasks:
        assert (await task)[-1].finish_reason == sampling_pb2.FINISH_REASON_ABORTED
    await eventually(lambda: not engine.running)
    assert not rig.dispatcher.abort("mine")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest), (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded)],
)
async def test_a_refusal_keeps_its_field(
    rig: Rig, new_engine: NewEngine, code: grpc.StatusCode, kind: type[HeadwayError]
) -> None:
    engine = await new_engine()
    engine.refuse = [(code, kind.reason, "grammar: too large", "grammar")]
    await rig.connect(engine)
    with pytest.raises(kind, match="too large") as caught:
        await rig.run(request())
    assert caught.value.field == "grammar"


async def test_a_running_request_that_is_refused_ends_with_that_error(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine(step_s=0.01)
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request(count=500)))
    await eventually(lambda: engine.running)
    await asyncio.sleep(0.05)
    engine.refuse_rows(grpc.StatusCode.INVALID_ARGUMENT, "no token may come", "grammar")
    with pytest.raises(InvalidRequest, match="no token may come"):
        await task


async def test_a_replica_that_stops_at_the_deadline_moves_nothing(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(name, step_s=0.01) for name in ("a", "b")]
    await rig.connect(*engines)
    task = asyncio.create_task(rig.run(request(count=900, deadline=asyncio.get_running_loop().time() + 0.2)))
    (await on_one_of(engines)).stop_rows()
    with pytest.raises(DeadlineExceeded):
        await task
    assert sum(len(engine.submits) for engine in engines) == 1
