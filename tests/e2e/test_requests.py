"""Requests through the whole path: client, router, worker, and back."""

import asyncio
import json
import time

import grpc
import httpx
import openai
import pytest
import torch
import transformers
from tiny_adapters import PeftOracle, edit_adapter, write_adapter

from headway.demo import DEMO_DIR
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import inference_pb2_grpc
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def request(text: str, tokens: int, **fields: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=text),
        sampling={"temperature": 0},
        stopping=pb.Stopping(max_new_tokens=tokens, ignore_eos=True),
        output=pb.Output(token_ids=True),
        **fields,
    )


async def collect(stub, message: pb.GenerateRequest):
    """(started, token ids, text, finished, usage) of one stream."""
    started = finished = usage = None
    ids: list[int] = []
    text = ""
    async for response in stub.Generate(message):
        match response.WhichOneof("event"):
            case "started":
                started = response.started
            case "delta":
                assert response.delta.offset == len(ids)
                ids += response.delta.token_ids
                text += response.delta.text
            case "finished":
                finished = response.finished
            case "usage":
                usage = response.usage
    return started, ids, text, finished, usage


@pytest.fixture(scope="module")
def oracle():
    """Greedy tokens as transformers computes them, in the precision that workers use on CPU."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO_DIR)
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_DIR, dtype=torch.float32)

    def greedy(text: str, tokens: int) -> tuple[list[int], list[int]]:
        prompt = tokenizer(text).input_ids
        # The model's own generation_config must not end it early or sample.
        settings = transformers.GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        settings.eos_token_id = None
        settings.pad_token_id = 0
        return prompt, model.generate(torch.tensor([prompt]), generation_config=settings)[0, len(prompt) :].tolist()

    return greedy


async def test_64_streams_at_once_give_transformers_tokens(cluster, oracle) -> None:
    prompts = [f"class Thing{number}:\n    def __init__(self, " for number in range(8)]
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        streams = await asyncio.gather(*(collect(stub, request(prompts[n % 8], 24)) for n in range(64)))
    assert {started.replica_id for started, *_ in streams} == {
        replica["id"] for replica in cluster.document["replicas"]
    }
    answers = [oracle(prompt, 24) for prompt in prompts]
    for number, (started, ids, _text, finished, usage) in enumerate(streams):
        prompt, expected = answers[number % 8]
        assert ids == expected
        assert started.prompt_tokens == usage.prompt_tokens == len(prompt)
        assert finished.reason == FINISH_REASON_LENGTH
        assert usage.completion_tokens == 24


async def test_shared_prefixes_land_on_the_warm_replica(cluster) -> None:
    prefix = "import collections\n" + "\n".join(f"value_{n} = collections.Counter({n})" for n in range(60))
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        cold, *_ = await collect(stub, request(prefix + "\nfirst = ", 4))
        await asyncio.sleep(0.3)
        warm = [(await collect(stub, request(f"{prefix}\nnext_{n} = ", 4)))[0] for n in range(6)]
    assert cold.cached_tokens == 0
    for started in warm:
        assert started.replica_id == cold.replica_id
        # All full pages before the prompts part.
        assert started.cached_tokens >= cold.prompt_tokens - 48


async def test_salts_share_nothing(cluster) -> None:
    text = "def salted(values):\n    " + "total = sum(values)\n    " * 20
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        await collect(stub, request(text, 2))
        salted, *_ = await collect(stub, request(text, 2, cache=pb.Cache(salt="mine")))
        again, *_ = await collect(stub, request(text, 2, cache=pb.Cache(salt="mine")))
    assert salted.cached_tokens == 0
    assert again.cached_tokens > 0


async def test_a_seed_makes_a_sampled_request_repeatable(cluster) -> None:
    def sampled() -> pb.GenerateRequest:
        message = request("def __init__(self, ", 32)
        message.sampling.temperature = 1.0
        message.sampling.seed = 7
        return message

    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        first, *others = await asyncio.gather(*(collect(stub, sampled()) for _ in range(8)))
        other = sampled()
        other.sampling.seed = 8
        assert (await collect(stub, other))[1] != first[1]
    assert all(ids == first[1] for _, ids, *_ in others)


def test_the_openai_client_streams_chat_and_completions(cluster) -> None:
    with openai.OpenAI(base_url=f"{cluster.document['http']}/v1", api_key="none", max_retries=0) as client:
        (model,) = client.models.list().data
        whole = client.completions.create(
            model=model.id, prompt="def __init__(self, ", max_tokens=16, temperature=0, extra_body={"ignore_eos": True}
        )
        assert whole.usage is not None and whole.usage.completion_tokens == 16
        pieces = client.completions.create(
            model=model.id,
            prompt="def __init__(self, ",
            max_tokens=16,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
        chat = client.chat.completions.create(
            model=model.id,
            messages=[{"role": "user", "content": "Return the larger of two numbers."}],
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        *_, last = chat
        assert last.usage is not None and 1 <= last.usage.completion_tokens <= 16


def test_both_fronts_return_the_same_tokens(cluster) -> None:
    body = {
        "model": "",
        "prompt": "def __repr__(self):\n",
        "max_tokens": 12,
        "temperature": 0,
        "return_token_ids": True,
    }
    body["model"] = cluster.document["replicas"][0]["model"]
    answer = httpx.post(f"{cluster.document['http']}/v1/completions", json=body).json()
    printed = cluster.run("generate", body["prompt"], "--json", "--max-tokens", "12", "--temperature", "0").stdout
    assert json.loads(printed)["text"] == answer["choices"][0]["text"]
    assert len(answer["choices"][0]["token_ids"]) == 12


@pytest.fixture(scope="module")
def adapter(cluster, tmp_path_factory):
    """What peft gives with an adapter and without, while the cluster serves it as "sql"."""
    path = write_adapter(
        tmp_path_factory.mktemp("adapters") / "sql", DEMO_DIR, seed=3, r=4, target_modules="all-linear"
    )
    peft = PeftOracle(DEMO_DIR, [path])
    cluster.run("adapters", "load", "sql", str(path))
    yield peft
    cluster.run("adapters", "unload", "sql")
    deadline = time.monotonic() + 10
    while httpx.get(f"{cluster.document['http']}/v1/models/sql").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_an_adapter_is_called_as_a_model_by_both_fronts(cluster, adapter, oracle) -> None:
    (shown,) = json.loads(cluster.run("adapters", "list", "--json").stdout)["adapters"]
    assert (shown["name"], shown["ready_replicas"], shown["replicas"], shown["errors"]) == ("sql", 2, 2, {})
    texts = [f"def query_{n}(self, table):\n    " for n in range(4)]
    plain = [oracle(text, 12) for text in texts]
    with adapter.using(0):
        tuned = [adapter.greedy(prompt, 12) for prompt, _ in plain]
    assert tuned != [ids for _, ids in plain]
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        calls = [collect(stub, request(text, 12, model=name)) for text in texts for name in ("", "sql")]
        streams = await asyncio.gather(*calls)
        models = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [ids for _, ids, *_ in streams[1::2]] == tuned
    assert [ids for _, ids, *_ in streams[::2]] == [ids for _, ids in plain]
    assert {(started.model, "+" in started.model_revision) for started, *_ in streams[1::2]} == {("sql", True)}
    async with httpx.AsyncClient(base_url=cluster.document["http"]) as http:
        body = {"model": "sql", "prompt": texts[0], "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        answer = (await http.post("/v1/completions", json=body | {"return_token_ids": True})).json()
        listed = (await http.get("/v1/models")).json()["data"]
    assert answer["choices"][0]["token_ids"] == tuned[0] and answer["model"] == "sql"
    base = next(model for model in models if not model.base)
    assert {model.name: model.base for model in models} == {base.name: "", "sql": base.name}
    assert {model["id"]: model["parent"] for model in listed} == {base.name: None, "sql": base.name}


def test_an_adapter_that_cannot_be_used_is_refused_with_the_reason(cluster, tmp_path) -> None:
    path = write_adapter(tmp_path / "dora", DEMO_DIR, seed=1, r=4, target_modules=["q_proj"])
    edit_adapter(path, use_dora=True)
    done = cluster.run("adapters", "load", "dora", str(path), check=False)
    assert done.returncode == 1 and "use_dora = True is not supported" in done.stderr
    shown = json.loads(cluster.run("adapters", "list", "--json").stdout)["adapters"]
    assert "dora" not in {adapter["name"] for adapter in shown}


async def test_a_cancelled_stream_frees_its_replica(cluster) -> None:
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Generate(request("while True:\n", 1500))
        async for response in call:
            if response.WhichOneof("event") == "delta":
                break
        call.cancel()
    idle = cluster.wait_for(lambda status: all(r["load"]["running"] == 0 for r in status["replicas"]), seconds=10)
    assert all(replica["load"]["used_pages"] == 0 for replica in idle["replicas"])
