"""Prints what the fake BigQuery (tests/it/support/bigquery/) is held to: Google's own description of its API, as it
ships in google-api-python-client, without the prose and without the methods that nobody here calls.

    .venv/bin/python discovery.py > ../fixtures/bigquery/discovery.json
"""

import importlib.metadata
import json
import pathlib
import sys

import googleapiclient

PACKAGE = "google-api-python-client"

METHODS = {
    "datasets": ["get", "insert"],
    "tables": ["delete", "get", "insert", "list", "patch", "testIamPermissions"],
    "tabledata": ["insertAll", "list"],
}

PROSE = {"description", "enumDescriptions", "deprecated", "enumDeprecated", "documentationLink", "pattern"}


def bare(value, is_names=False):
    """Without prose. A property may be called like prose: names are kept, whatever they are."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if is_names or key not in PROSE}
    return {key: bare(item, is_names=not is_names and key in ("properties", "parameters")) for key, item in kept.items()}


def references(value):
    """The schemas that something mentions."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def trimmed(document):
    methods = {
        resource: {"methods": {name: bare(document["resources"][resource]["methods"][name]) for name in names}}
        for resource, names in METHODS.items()
    }
    schemas, waiting = {}, sorted(set(references(methods)))
    while waiting:
        name = waiting.pop()
        if name not in schemas:
            schemas[name] = bare(document["schemas"][name])
            waiting.extend(references(schemas[name]))
    return {
        "origin": {"package": PACKAGE, "version": importlib.metadata.version(PACKAGE), "license": "Apache-2.0"},
        "revision": document["revision"],
        "servicePath": document["servicePath"],
        "parameters": bare(document["parameters"], is_names=True),
        "resources": methods,
        "schemas": dict(sorted(schemas.items())),
    }


def main():
    folder = pathlib.Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    document = json.loads((folder / "bigquery.v2.json").read_text("utf-8"))
    json.dump(trimmed(document), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
