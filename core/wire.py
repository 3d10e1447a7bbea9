"""Between our values and their messages."""

from __future__ import annotations

from ..proto.headway.v1 import sampling_pb2
from .constraints import Grammar
from .sampling import SamplingParams


def sampling_to_proto(params: SamplingParams) -> sampling_pb2.Sampling:
    """The message with every scalar set."""
    return sampling_pb2.Sampling(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        seed=params.seed,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
    )


def sampling_from_proto(message: sampling_pb2.Sampling, defaults: SamplingParams) -> SamplingParams:
    """The message's set scalars over `defaults`. Bounds are not checked here: see router validation."""

    def pick(name: str) -> float | int:
        value: float | int = getattr(message if message.HasField(name) else defaults, name)
        return value

    return SamplingParams(
        temperature=pick("temperature"),
        top_p=pick("top_p"),
        top_k=int(pick("top_k")),
        min_p=pick("min_p"),
        seed=int(pick("seed")),
        presence_penalty=pick("presence_penalty"),
        frequency_penalty=pick("frequency_penalty"),
        repetition_penalty=pick("repetition_penalty"),
    )


def grammar_to_proto(grammar: Grammar) -> sampling_pb2.Grammar:
    """The message that says the same."""
    match grammar.kind:
        case "json_object":
            return sampling_pb2.Grammar(json_object=sampling_pb2.JsonObject())
        case "choice":
            return sampling_pb2.Grammar(choice=sampling_pb2.Choice(texts=grammar.choices))
        case "json_schema":
            return sampling_pb2.Grammar(json_schema=grammar.text)
        case "regex":
            return sampling_pb2.Grammar(regex=grammar.text)
        case _:
            return sampling_pb2.Grammar(ebnf=grammar.text)


def grammar_from_proto(message: sampling_pb2.Grammar) -> Grammar | None:
    """The grammar; None when the message sets no form."""
    kind = message.WhichOneof("form")
    if kind is None:
        return None
    if kind == "choice":
        return Grammar(kind, choices=tuple(message.choice.texts))
    return Grammar(kind, "" if kind == "json_object" else getattr(message, kind))
