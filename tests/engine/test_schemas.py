"""Two hundred JSON schemas, greedy and sampled: what ends by itself validates, what is cut off is a beginning."""

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest
from engine_client import GREEDY
from llguidance import LLMatcher, LLTokenizer
from schemas import schema_of, validate
from tokenizers import Tokenizer

from headway.core.constraints import Grammar as GrammarValue
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_EOS, FINISH_REASON_LENGTH, Grammar
from headway.worker.structured.source import to_source

SCHEMAS = 200
AT_ONCE = 64
LONGEST = 250
EOS = [0, 4]
TOKENIZER = (Path(__file__).parents[2] / "demo" / "headway-demo" / "tokenizer.json").read_text()
TEXT = Tokenizer.from_str(TOKENIZER)
TRIE = LLTokenizer(TOKENIZER, n_vocab=4096, eos_token=EOS)
PROMPT = TEXT.encode("import json\nvalue = ").ids


@pytest.fixture
def worker(worker_of):
    return worker_of("--pages", "1200", "--max-sequences", str(AT_ONCE), "--max-waiting", str(SCHEMAS))


@pytest.mark.parametrize("way", ["greedy", "sampled"])
async def test_every_output_is_an_instance(worker, session_to, way):
    async with session_to(worker) as session:
        streams = []
        for seed in range(SCHEMAS):
            sampling = GREEDY if way == "greedy" else SamplingParams(temperature=1.5, seed=seed)
            grammar = Grammar(json_schema=json.dumps(schema_of(seed), ensure_ascii=seed % 2 == 0))
            streams.append(await session.submit(PROMPT, LONGEST, sampling, grammar=grammar, eos_token_ids=EOS))
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 100) for stream in streams))
    whole = 0
    for seed, stream in enumerate(streams):
        schema = schema_of(seed)
        assert stream.refusal is None, (schema, stream.refusal)
        if stream.last.finish_reason == FINISH_REASON_EOS:
            text = TEXT.decode(stream.token_ids[:-1], skip_special_tokens=False)
            try:
                validate(json.loads(text), schema)
            except (ValueError, jsonschema.ValidationError) as error:
                raise AssertionError(f"schema {seed}: {schema}\n{text}") from error
            whole += 1
        else:
            assert stream.last.finish_reason == FINISH_REASON_LENGTH
            matcher = LLMatcher(TRIE, to_source(GrammarValue("json_schema", json.dumps(schema))), log_level=0)
            assert matcher.consume_tokens(stream.token_ids), f"schema {seed} does not begin so: {schema}"
    assert whole > SCHEMAS * 3 // 4, f"only {whole} came to an end"
