"""The desired state: plain values, small enough to be written whole at each change."""

from __future__ import annotations

import msgspec

from ...core.specs import EngineSpec, GroupSpec

KEPT_ANSWERS = 1000
KEPT_LINES = 1000
KEPT_REVISIONS = 32


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model, how many replicas of it are wanted, and what each of them is."""

    name: str
    path: str
    replicas: int
    tp: int = 1
    pp: int = 1
    device: str = "cpu"
    dtype: str = "auto"
    load_format: str = "auto"
    ignore_remote_code: bool = False
    symmetric_memory: bool = False
    engine: EngineSpec = EngineSpec()

    def group(self, replica_id: str, *, host: str, controller_address: str) -> GroupSpec:
        """The worker group that one replica of this model is."""
        return GroupSpec(
            replica_id=replica_id,
            model_name=self.name,
            model_path=self.path,
            tp=self.tp,
            pp=self.pp,
            device=self.device,
            dtype=self.dtype,
            load_format=self.load_format,
            ignore_remote_code=self.ignore_remote_code,
            symmetric_memory=self.symmetric_memory,
            host=host,
            controller_address=controller_address,
            engine=self.engine,
        )


class ReplicaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that exists or is to exist.

    `drain_until` is 0 for one that shall serve. For one that shall go it is the end of its patience, in unix seconds.
    """

    id: str
    model: str
    ordinal: int
    drain_until: float = 0.0


class AdapterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter that every replica of `model` is to hold, read from `path` on the workers' machine."""

    name: str
    model: str
    path: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a change with an idempotency key was answered. `digest` names the request, so that a reused key is seen."""

    digest: str
    version: int
    steps: tuple[str, ...]


class ChangeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log of changes. `time` is unix seconds."""

    time: float
    version: int
    what: str
    reason: str = ""


class ModelRevision(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was wanted to be from `time` (unix seconds) on, until its next revision.

    `number` grows by one with each change of the model's settings. `what` is the change, `reason` the operator's text.
    """

    number: int
    time: float
    model: ModelSpec
    what: str
    reason: str = ""


class DesiredState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must outlive the controller.

    `revision` grows by one with each commit, whatever it changes. `revisions` are those of each model's settings,
    oldest first, the last one in force. `changed_at` is the cluster version of the last change by an operator.
    `lives` counts controllers that served this state: versions of different lives never compare wrongly.
    """

    revision: int = 0
    changed_at: int = 0
    lives: int = 0
    next_ordinal: int = 0
    models: dict[str, ModelSpec] = {}
    revisions: dict[str, tuple[ModelRevision, ...]] = {}
    replicas: dict[str, ReplicaRecord] = {}
    adapters: dict[str, AdapterRecord] = {}
    answers: dict[str, Answer] = {}
    log: tuple[ChangeLine, ...] = ()

    def following(self, **changes: object) -> DesiredState:
        """The next revision, with these fields changed; what is kept without limit elsewhere is trimmed here."""
        after = msgspec.structs.replace(self, revision=self.revision + 1, **changes)
        surplus = len(after.answers) - KEPT_ANSWERS
        if surplus > 0:
            after = msgspec.structs.replace(after, answers=dict(list(after.answers.items())[surplus:]))
        return msgspec.structs.replace(after, log=after.log[-KEPT_LINES:])
