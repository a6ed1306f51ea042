"""The names of others that MSFL uses without their makers' promise, with what each must be.

flwr is pinned exactly for its part of this list; who moves to another version runs `pytest tests/private_names`, which
fails by name for whatever is gone, takes other parameters or does otherwise. A name that the source uses and that is
not here, or is here and not used, fails as well.

What a name must be:

    (a, b=, *, c)      takes these parameters and no others; `=` marks those that may be left out. Exact where MSFL
                       overrides the name or stands in its place: Flower calls it then
    (a, b=, ...)       takes these first; others may follow, and may be left out
    has a, b           a protobuf message, enumeration or class with these fields or members
    = value            is this value, which MSFL or its tests write out elsewhere
    attribute          an attribute of an instance, see `INSTANCES` in `shapes.py`
    set in f           an attribute that the class's function `f` sets
    value              the text is a constant of the module
    any                is there
"""

from __future__ import annotations

from tests.private_names.group import Group
from tests.private_names.names_of_others import OTHERS

_CLIENT = "(base_url, *, interceptors=, verify=, timeout=, ...)"

FLOWER = (
    Group(
        "flwr.app.message",
        "a message's head without its content, and the message that stands for a lost reply",
        {"make_message": "(metadata, content=, error=)", "remove_content_from_message": "(message)"},
    ),
    Group(
        "flwr.common.constant",
        "bounds and clocks that both sides count with; how the SuperLink is set up",
        {
            "ErrorCode": "has MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, REPLY_MESSAGE_UNAVAILABLE",
            "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": "= 5242880",
            "ISOLATION_MODE_PROCESS": "any",
            "SUPERLINK_NODE_ID": "any",
            "SYSTEM_TIME_TOLERANCE": "= 5",
            "SubStatus": "has COMPLETED, FAILED",
            "TIMESTAMP_HEADER": "= 'flwr-timestamp'",
            "TIMESTAMP_TOLERANCE": "= 300",
            "TRANSPORT_TYPE_GRPC_RERE": "any",
        },
    ),
    Group(
        "flwr.common.serde",
        "messages, the run and its context, to and from the wire",
        {
            "context_from_proto": "(context_proto)",
            "message_from_proto": "(message_proto)",
            "message_to_proto": "(message)",
            "run_from_proto": "(run_proto)",
        },
    ),
    Group(
        "flwr.proto.control_pb2",
        "registering sites and opening runs at the SuperLink",
        {
            "ListNodesRequest": "has",
            "ListRunsRequest": "has",
            "RegisterNodeRequest": "has public_key, name",
            "StartRunRequest": "has fab",
            "StopRunRequest": "has run_id",
            "UnregisterNodeRequest": "has node_id",
        },
    ),
    Group("flwr.proto.fab_pb2", "the bundle without code that a run is opened with", {"Fab": "has content"}),
    Group(
        "flwr.proto.fleet_pb2",
        "what a site says to the SuperLink",
        {
            "ActivateNodeRequest": "has public_key, heartbeat_interval",
            "DeactivateNodeRequest": "has node_id",
            "PullMessagesRequest": "has node",
            "PushMessagesRequest": "has node, messages_list, message_object_trees, clientapp_runtime_list",
            "PushMessagesResponse": "has objects_to_push, session_id",
        },
    ),
    Group(
        "flwr.proto.heartbeat_pb2",
        "that a site is there",
        {"SendNodeHeartbeatRequest": "has node, heartbeat_interval"},
    ),
    Group(
        "flwr.proto.message_pb2",
        "the parts of messages, and who may fetch them",
        {
            "ConfirmMessageReceivedRequest": "has node, run_id, message_object_id",
            "ConfirmMessageReceivedResponse": "has",
            "ObjectTree": "has object_id, children",
            "PullObjectRequest": "has node, run_id, object_id",
            "PushObjectRequest": "has node, run_id, object_id, object_content, session_id",
        },
    ),
    Group(
        "flwr.proto.node_pb2",
        "sites at the SuperLink",
        {"Node": "has node_id", "NodeInfo": "has node_id, name, status, public_key, last_activated_at"},
    ),
    Group("flwr.proto.run_pb2", "which app a run says it is", {"GetRunRequest": "has node, run_id"}),
    Group(
        "flwr.proto.runtime_pb2",
        "the server process's task and its messages",
        {
            "AcquireTaskRequest": "has supported_task_types",
            "PullAppMessagesRequest": "has message_ids",
            "PullTaskInputRequest": "has",
            "PushAppMessagesRequest": "has messages_list, message_object_trees",
            "PushTaskOutputRequest": "has sub_status, details",
        },
    ),
    Group("flwr.server.superlink.linkstate", "the type of a register", {"LinkState": "any"}),
    Group(
        "flwr.server.superlink.linkstate.linkstate_factory",
        "stands in for Flower's register",
        {"SqlLinkState": "(database_path, federation_manager, object_store)"},
    ),
    Group(
        "flwr.server.superlink.linkstate.sql_linkstate",
        "the base of the coordinator's register",
        {"SqlLinkState": "(database_path, federation_manager, object_store)"},
    ),
    Group(
        "flwr.server.superlink.linkstate.sql_linkstate.SqlLinkState",
        "nodes and messages in SQLite, objects in a store of our own",
        {
            "create_node": "(owner_aid, owner_name, public_key, heartbeat_interval, *, location=, name=)",
            "delete_messages": "(message_ins_ids)",
            "delete_node": "(owner_aid, node_id)",
            "delete_sessions_in_run": "(run_id)",
            "get_object": "(run_id, object_id)",
            "session": "()",
            "start_session": "(run_id)",
            "store_message_and_object_tree": "(message, object_tree, session_id)",
            "store_message_ins": "(message)",
            "store_message_res": "(message)",
            "store_object": "(run_id, session_id, object_id, object_content)",
            "store_traffic": "(run_id, *, bytes_sent, bytes_recv)",
        },
    ),
    Group(
        "flwr.server.superlink.utils",
        "asked once a second in place of for each object",
        {"check_abort": "(run_id, abort_status_list, state)"},
    ),
    Group(
        "flwr.supercore.constant",
        "headers of signed calls, states of nodes, kinds of tasks and messages",
        {
            "FLEET_HTTP_PUBLIC_KEY_HEADER": "= 'flwr-public-key'",
            "FLEET_HTTP_SIGNATURE_HEADER": "= 'flwr-signature'",
            "NodeStatus": "has UNREGISTERED",
            "SYSTEM_MESSAGE_TYPE": "= 'system'",
            "TaskType": "has SERVER_APP",
        },
    ),
    Group(
        "flwr.supercore.control",
        "the control port's client",
        {"ControlHttpClient": "has from_server_address, ListNodes, RegisterNode, UnregisterNode, ListRuns, StopRun"},
    ),
    Group("flwr.supercore.date", "the clock of signatures", {"now": "()"}),
    Group(
        "flwr.supercore.error",
        "Flower's errors, told and read",
        {
            "ApiErrorCode": "has FLEET_INVALID_HEARTBEAT_INTERVAL, FLEET_NODE_ACTIVATION_FAILED, "
            "FLEET_RUN_STATUS_NOT_ALLOWED, PUBLIC_KEY_ALREADY_IN_USE",
            "FlowerError": "(code, message, public_details=)",
            "http_error_translator": "(request, call_next)",
        },
    ),
    Group("flwr.supercore.error.catalog", "what an unknown key is answered", {"API_ERROR_MAP": "any"}),
    Group(
        "flwr.supercore.heartbeat",
        "that the server process is there",
        {"HeartbeatSender": "(heartbeat_fn) has start, stop", "make_task_heartbeat_fn_http": "(client)"},
    ),
    Group(
        "flwr.supercore.inflatable.inflatable_object",
        "messages as trees of objects named by their digests",
        {
            "InflatableObject": "has deflate, inflate, object_id",
            "get_all_nested_objects": "(obj)",
            "get_object_id": "(object_content)",
            "get_object_tree": "(obj)",
            "is_valid_sha256_hash": "(object_id)",
            "iterate_object_tree": "(tree)",
            "no_object_id_recompute": "()",
        },
    ),
    Group(
        "flwr.supercore.inflatable.inflatable_protobuf_utils",
        "one object's call, with the client's method for it",
        {
            "make_confirm_message_received_fn_protobuf": "(confirm_message_received_protobuf, node, run_id)",
            "make_pull_object_fn_protobuf": "(pull_object_protobuf, node, run_id)",
            "make_push_object_fn_protobuf": "(push_object_protobuf, node, run_id, session_id)",
        },
    ),
    Group(
        "flwr.supercore.inflatable.inflatable_utils",
        "objects fetched, sent, checked and made into messages",
        {
            "ObjectPullError": "(object_id, reason)",
            "ObjectPushError": "any",
            "ObjectUnavailableError": "any",
            "inflate_object_from_contents": "(object_id, object_contents, *, keep_object_contents=, objects=)",
            "pull_objects": "(object_ids, pull_object_fn, *, max_concurrent_pulls=, max_time=, max_tries_per_object=, "
            "initial_backoff=, backoff_cap=, ...)",
            "push_objects": "(objects, push_object_fn, *, object_ids_to_push=, ...)",
            "validate_object_content": "(content)",
        },
    ),
    Group(
        "flwr.supercore.interceptors",
        "what Flower's server wants to stand in each call",
        {"RuntimeTokenHttpInterceptor": "(token)", "RuntimeVersionHttpInterceptor": "(component_name)"},
    ),
    Group(
        "flwr.supercore.object_store",
        "the base of the store of what is in flight",
        {"NoObjectInStoreError": "(message)", "ObjectStore": "any"},
    ),
    Group(
        "flwr.supercore.object_store.ObjectStore",
        "what Flower asks of such a store",
        {
            "__contains__": "(object_id)",
            "__len__": "()",
            "clear": "()",
            "delete": "(object_id)",
            "delete_objects_in_run": "(run_id)",
            "get": "(object_id)",
            "get_object_tree": "(object_id)",
            "preregister": "(run_id, object_tree)",
            "put": "(object_id, object_content)",
        },
    ),
    Group(
        "flwr.supercore.object_store.object_store_factory",
        "stands in for Flower's store",
        {"SqlObjectStore": "(database_path, ...)"},
    ),
    Group(
        "flwr.supercore.primitives.asymmetric",
        "keys and signatures of sites",
        {
            "bytes_to_public_key": "(public_key_bytes)",
            "generate_key_pairs": "()",
            "public_key_to_bytes": "(public_key)",
            "verify_signature": "(public_key, message, signature)",
        },
    ),
    Group(
        "flwr.supercore.protobuf.client",
        "calls over HTTP, and what may stand around each",
        {
            "ProtobufCall": "any",
            "ProtobufClient": _CLIENT,
            "ProtobufClientInterceptor": "has intercept",
            "ProtobufRequestContext": "(rpc_method, message, request)",
        },
    ),
    Group("flwr.supercore.protobuf.constants", "answers' kind", {"PROTOBUF_MEDIA_TYPE": "= 'application/protobuf'"}),
    Group(
        "flwr.supercore.protobuf.translation",
        "a call's body as a protobuf message",
        {"ProtobufTranslationMiddleware": "has _parse_request"},
    ),
    Group(
        "flwr.supercore.retry",
        "how long the server process tries again",
        {
            "RetryInvoker": "(wait_gen_factory, recoverable_exceptions, max_tries, max_time, *, ...)",
            "exponential": "(base_delay=, multiplier=, max_delay=)",
        },
    ),
    Group("flwr.supercore.run", "the run that messages belong to", {"Run": "has create_empty"}),
    Group(
        "flwr.supercore.runtime",
        "the server process's client",
        {
            "RuntimeHttpClient": "has from_server_address, AcquireTask, PullTaskInput, PushTaskOutput, PushMessages, "
            "PullMessages, PushObject, PullObject, ConfirmMessageReceived, GetNodes"
        },
    ),
    Group("flwr.supercore.sql_mixin", "SQLite's settings", {"SQLITE_PRAGMAS": "any"}),
    Group("flwr.supercore.task_identity", "whom a message is from", {"TaskIdentity": "has task_id, run_id, node_id"}),
    Group("flwr.superlink.auth_plugin", "the gate lets in, no plugin", {"NoOpControlAuthnPlugin": "()"}),
    Group(
        "flwr.superlink.cli.flower_superlink",
        "starts and ends the SuperLink's application",
        {"SuperLinkLifespan": "(config, state_factory)"},
    ),
    Group(
        "flwr.superlink.config_loader",
        "the SuperLink's settings",
        {
            "SuperLinkLifespanConfig": "(control_address, health_server_address, host, port, insecure, certificates, "
            "superexec_auth_secret, authn_plugin, event_log_plugin, fleet_event_log_plugin, enable_event_log, "
            "artifact_provider, enable_supernode_auth, fleet_api_type, fleet_api_address, simulation, ssl_ca_certfile, "
            "ssl_certfile, ssl_keyfile, database, isolation, runtime_dependency_install)",
            "load_control_authn_plugin": "()",
        },
    ),
    Group("flwr.superlink.dependencies.linkstate", "the register that a call is about", {"get_linkstate": "(request)"}),
    Group(
        "flwr.superlink.grid.http_grid",
        "the base of the coordinator's grid",
        {"HttpGrid": "(runtime_api_address=, insecure=, root_certificates=, *, token)"},
    ),
    Group(
        "flwr.superlink.grid.http_grid.HttpGrid",
        "a run's grid, which never waits for one upload alone",
        {
            "_addr": "attribute",
            "_cert": "attribute",
            "_connect": "()",
            "_insecure": "attribute",
            "_run": "attribute",
            "_runtime_client": "any",
            "_token": "attribute",
            "_try_push_messages": "(run_id, messages)",
            "get_nodes": "()",
            "node": "attribute",
            "pull_messages": "(message_ids)",
        },
    ),
    Group(
        "flwr.superlink.main",
        "the SuperLink's application, with fewer layers",
        {"_get_middleware": "()", "create_app": "(config=, superlink_lifespan_class=)"},
    ),
    Group(
        "flwr.superlink.routers.fleet.node_auth",
        "the gate knows whose call it is",
        {"authenticate_node": "(request)"},
    ),
    Group(
        "flwr.superlink.servicer.fleet.fleet_handlers",
        "what a site's call does; checked more closely, and less often",
        {
            "check_abort": "(run_id, abort_status_list, state)",
            "confirm_message_received": "(request, state, store)",
            "pull_object": "(request, state)",
            "push_messages": "(request, state)",
            "push_object": "(request, state)",
        },
    ),
    Group("flwr.supernode.fleet_http_client", "a site's client", {"FleetHttpClient": _CLIENT}),
    Group(
        "flwr.supernode.node_auth_http_interceptor",
        "a site's signature in each call",
        {"NodeAuthHttpInterceptor": "(private_key, public_key)"},
    ),
)

LISTED = {f"{group.of}.{name}": must for group in (*FLOWER, *OTHERS) for name, must in group.names.items()}
