from . import admin_pb2 as _admin_pb2
from . import engine_pb2 as _engine_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportReplicaRequest(_message.Message):
    __slots__ = ("replica_id", "incarnation", "state", "reason", "loaded", "endpoint", "pids", "nodes", "revision", "load", "adapters")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    incarnation: str
    state: _admin_pb2.ReplicaState
    reason: str
    loaded: float
    endpoint: str
    pids: _containers.RepeatedScalarFieldContainer[int]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    revision: str
    load: _engine_pb2.Load
    adapters: _containers.RepeatedCompositeFieldContainer[_engine_pb2.Adapter]
    def __init__(self, replica_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., state: _Optional[_Union[_admin_pb2.ReplicaState, str]] = ..., reason: _Optional[str] = ..., loaded: _Optional[float] = ..., endpoint: _Optional[str] = ..., pids: _Optional[_Iterable[int]] = ..., nodes: _Optional[_Iterable[str]] = ..., revision: _Optional[str] = ..., load: _Optional[_Union[_engine_pb2.Load, _Mapping]] = ..., adapters: _Optional[_Iterable[_Union[_engine_pb2.Adapter, _Mapping]]] = ...) -> None: ...

class ReportReplicaResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportRouterRequest(_message.Message):
    __slots__ = ("router",)
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    router: _admin_pb2.Router
    def __init__(self, router: _Optional[_Union[_admin_pb2.Router, _Mapping]] = ...) -> None: ...

class ReportRouterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
