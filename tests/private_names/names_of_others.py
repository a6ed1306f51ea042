"""What MSFL takes of httpx, uvicorn and MLflow in the way of `names.py`."""

from __future__ import annotations

from tests.private_names.group import Group

OTHERS = (
    Group(
        "*",
        "attributes of objects: a client's connections, bounded and tried again; a message's name",
        {
            "_base_url": "of flwr.supercore.protobuf.client.ProtobufClient",
            "_client": "of flwr.supercore.protobuf.client.ProtobufClient",
            "_message_id": "of flwr.app.Metadata",
            "_mounts": "of httpx.Client",
            "_parse_request": "of flwr.supercore.protobuf.translation.ProtobufTranslationMiddleware",
            "_pool": "of httpx.HTTPTransport",
            "_retries": "of httpcore.ConnectionPool",
            "_runtime_client": "of flwr.superlink.grid.http_grid.HttpGrid",
            "_transport": "of httpx.Client",
        },
    ),
    Group(
        "mlflow.server.constants",
        "settings that MLflow's own command hands to its server",
        {
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "value",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "value",
            "_MLFLOW_SERVER_FILE_STORE": "value",
            "_MLFLOW_SERVER_REGISTRY_STORE": "value",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "value",
        },
    ),
    Group("mlflow.server.fastapi_app", "MLflow's application, behind a gate of ours", {"app": "any"}),
    Group(
        "mlflow.server.handlers",
        "opens MLflow's store",
        {"initialize_backend_stores": "(backend_store_uri=, registry_store_uri=, default_artifact_root=, ...)"},
    ),
    Group("mlflow.store.artifact.artifact_repo", "the type of a place", {"ArtifactRepository": "any"}),
    Group(
        "mlflow.store.artifact.artifact_repository_registry",
        "the list of places, cut down to one",
        {"get_registered_artifact_repositories": "()"},
    ),
    Group(
        "mlflow.store.artifact.local_artifact_repo",
        "the base of a folder in which no link leads out",
        {"LocalArtifactRepository": "(artifact_uri, ...)"},
    ),
    Group(
        "mlflow.store.artifact.local_artifact_repo.LocalArtifactRepository",
        "its ways to a file",
        {
            "_download_file": "(remote_file_path, local_path)",
            "_get_or_create_artifact_dir": "(artifact_path=)",
            "artifact_dir": "any",
            "get_local_path": "(artifact_path)",
            "list_artifacts": "(path=)",
        },
    ),
    Group(
        "uvicorn.Server",
        "takes connections in a way of our own",
        {
            "config": "attribute",
            "lifespan": "set in _serve",
            "on_tick": "(counter)",
            "server_state": "attribute",
            "startup": "(sockets=)",
        },
    ),
    Group(
        "uvicorn.protocols.http.httptools_impl",
        "the base of the protocol at the gate",
        {"HttpToolsProtocol": "(config, server_state, app_state, ...)"},
    ),
    Group(
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
        "a call's first lines are counted, timed and judged before anything reads on",
        {
            "_unset_keepalive_if_required": "()",
            "connection_lost": "(exc)",
            "connection_made": "(transport)",
            "data_received": "(data)",
            "expect_100_continue": "attribute",
            "flow": "attribute",
            "headers": "attribute",
            "loop": "attribute",
            "on_body": "(body)",
            "on_header": "(name, value)",
            "on_headers_complete": "()",
            "on_message_begin": "()",
            "on_message_complete": "()",
            "on_response_complete": "()",
            "parser": "attribute",
            "pipeline": "attribute",
            "scope": "attribute",
            "server": "attribute",
            "server_state": "attribute",
            "timeout_keep_alive_handler": "()",
            "transport": "attribute",
            "url": "attribute",
        },
    ),
    Group("uvicorn.server", "what a server counts", {"ServerState": "any"}),
)
