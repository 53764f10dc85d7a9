"""Drives google-cloud-bigquery, Google's own client, against the fake of tests/it/support/bigquery/.

    bigquery.py check  --endpoint URL [--credentials FILE]
        Makes a dataset and tables, inserts rows, changes a table, reads everything back; prints what came of each step.
    bigquery.py insert --endpoint URL [--credentials FILE] < {"table": "p.d.t", "rows": [{…}], "row_ids": ["…"]}
        Inserts these rows with `insert_rows`, each value first made what its column's type is in Python.
    bigquery.py rows   --endpoint URL [--credentials FILE] [--query] < {"table": "p.d.t"}
        Prints the rows of a table: listed, or, of Google's own service, asked for with a query, which sees what was just
        streamed.
    bigquery.py drop   --endpoint URL [--credentials FILE] < {"table": "p.d.t"}
        Deletes a table.
"""

import argparse
import base64
import datetime
import decimal
import json
import sys

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.oauth2 import service_account

PROJECT = "a-project"
UTC = datetime.timezone.utc

SCHEMA = [
    bigquery.SchemaField("id", "STRING", mode="REQUIRED", max_length=64),
    bigquery.SchemaField("at", "TIMESTAMP", mode="REQUIRED", description="when it happened"),
    bigquery.SchemaField("bytes", "BYTES"),
    bigquery.SchemaField("integer", "INT64"),
    bigquery.SchemaField("float", "FLOAT64"),
    bigquery.SchemaField("numeric", "NUMERIC", precision=10, scale=2),
    bigquery.SchemaField("bignumeric", "BIGNUMERIC"),
    bigquery.SchemaField("boolean", "BOOL"),
    bigquery.SchemaField("date", "DATE"),
    bigquery.SchemaField("time", "TIME"),
    bigquery.SchemaField("datetime", "DATETIME"),
    bigquery.SchemaField("geography", "GEOGRAPHY"),
    bigquery.SchemaField("json", "JSON"),
    bigquery.SchemaField("tags", "STRING", mode="REPEATED"),
    bigquery.SchemaField(
        "order",
        "STRUCT",
        fields=[
            bigquery.SchemaField("total", "NUMERIC"),
            bigquery.SchemaField(
                "lines",
                "STRUCT",
                mode="REPEATED",
                fields=[bigquery.SchemaField("sku", "STRING"), bigquery.SchemaField("count", "INT64")],
            ),
        ],
    ),
]

TYPED = {
    "id": "typed",
    "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "bytes": b"\x00\xff",
    "integer": 2**63 - 1,
    "float": 1.5,
    "numeric": decimal.Decimal("19.99"),
    "bignumeric": decimal.Decimal("0.12345678901234567890123456789012345678"),
    "boolean": True,
    "date": datetime.date(2026, 1, 2),
    "time": datetime.time(3, 4, 5, 678901),
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901),
    "geography": "POINT(1 2)",
    "json": {"a": [1, None, "é"]},
    "tags": ["a", "b"],
    "order": {"total": decimal.Decimal("5"), "lines": [{"sku": "x", "count": 2}, {"sku": None, "count": None}]},
}


def client_for(args):
    """A client of the fake: nobody in particular, or a service account that asks the fake for its tokens."""
    options = {"api_endpoint": args.endpoint}
    if args.credentials is None:
        return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options=options)
    credentials = service_account.Credentials.from_service_account_file(args.credentials)
    return bigquery.Client(project=PROJECT, credentials=credentials, client_options=options)


def steps(client):
    """Each step's name and what came of it; a step that fails says so by its exception."""
    dataset = bigquery.Dataset(f"{PROJECT}.shop")
    dataset.location = "EU"
    client.create_dataset(dataset)
    client.create_dataset(dataset, exists_ok=True)
    yield "dataset", client.get_dataset("shop").location

    events = bigquery.Table(f"{PROJECT}.shop.events", schema=SCHEMA)
    events.time_partitioning = bigquery.TimePartitioning(field="at", expiration_ms=86_400_000)
    events.require_partition_filter = True
    events.clustering_fields = ["id", "date"]
    events.labels = {"made_by": "python"}
    client.create_table(events)
    events = client.get_table("shop.events")
    partitioning = events.time_partitioning
    yield "table", [partitioning.type_, partitioning.field, partitioning.expiration_ms, events.clustering_fields]
    yield "columns", [f"{field.name} {field.field_type} {field.mode}" for field in events.schema]
    yield "tables", [table.table_id for table in client.list_tables("shop")]

    yield "typed", client.insert_rows(events, [TYPED])
    plain = {"id": "plain", "at": 1_767_323_045.5, "integer": "7", "order": {"lines": [{}]}}
    yield "plain", client.insert_rows_json("shop.events", [plain, {"id": "least", "at": "2026-01-02"}])
    yield "invalid", client.insert_rows_json(events, [{"id": "x", "at": "2026-01-02", "no": 1}, {"id": "y", "at": "2026-01-02"}])
    options = {"skip_invalid_rows": True, "ignore_unknown_values": True, "row_ids": ["1", "2"]}
    yield "skipped", client.insert_rows_json(events, [{"id": "z", "at": "2026-01-02", "no": 1}, {"id": "w"}], **options)
    yield "again", client.insert_rows_json(events, [{"id": "z", "at": "2026-01-02"}], row_ids=["1"])

    stale = client.get_table("shop.events")
    events.schema = [*events.schema, bigquery.SchemaField("added", "STRING")]
    events = client.update_table(events, ["schema"])
    yield "added", events.schema[-1].name
    stale.description = "too late"
    yield "stale", refusal(exceptions.PreconditionFailed, lambda: client.update_table(stale, ["description"]))
    events.schema = events.schema[1:]
    yield "shrunk", refusal(exceptions.BadRequest, lambda: client.update_table(events, ["schema"]))

    rows = {row["id"]: dict(row.items()) for row in client.list_rows("shop.events", page_size=2)}
    yield "ids", sorted(rows)
    typed = rows["typed"]
    yield "same", [key for key, value in TYPED.items() if typed[key] != value]
    yield "times", rows["plain"]["at"].isoformat()

    client.delete_table("shop.events")
    yield "gone", refusal(exceptions.NotFound, lambda: client.get_table("shop.events"))


def refusal(expected, call):
    """What the service says to something that it must refuse."""
    try:
        call()
    except expected as error:
        return error.message
    raise AssertionError(f"{expected.__name__} was expected")


def python_value(field, value, is_item=False):
    """A value of JSON as what its column's type is in Python."""
    if value is None:
        return None
    if field.mode == "REPEATED" and not is_item:
        return [python_value(field, item, is_item=True) for item in value]
    match field.field_type:
        case "RECORD" | "STRUCT":
            return python_row(field.fields, value)
        case "TIMESTAMP":
            return datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        case "DATETIME":
            return datetime.datetime.fromisoformat(value)
        case "DATE":
            return datetime.date.fromisoformat(value)
        case "TIME":
            return datetime.time.fromisoformat(value)
        case "NUMERIC" | "BIGNUMERIC":
            return decimal.Decimal(str(value))
        case "BYTES":
            return base64.b64decode(value)
        case "INTEGER" | "INT64":
            return int(value)
        case "FLOAT" | "FLOAT64":
            return float(value)
        case _:
            return value


def python_row(fields, row):
    by_name = {field.name: field for field in fields}
    return {name: python_value(by_name[name], value) for name, value in row.items() if name in by_name}


def insert(client, asked):
    table = client.get_table(asked["table"])
    rows = [python_row(table.schema, row) for row in asked["rows"]]
    return client.insert_rows(table, rows, row_ids=asked["row_ids"], skip_invalid_rows=True)


def rows_of(client, asked, with_query):
    if with_query:
        found = client.query(f"SELECT * FROM `{asked['table']}`").result()
    else:
        found = client.list_rows(client.get_table(asked["table"]))
    return [json.loads(json.dumps(dict(row), default=str)) for row in found]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["check", "insert", "rows", "drop"])
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--credentials")
    parser.add_argument("--query", action="store_true")
    args = parser.parse_args()
    client = client_for(args)
    if args.command == "check":
        report = dict(steps(client))
    elif args.command == "insert":
        report = insert(client, json.load(sys.stdin))
    elif args.command == "rows":
        report = rows_of(client, json.load(sys.stdin), args.query)
    else:
        report = client.delete_table(json.load(sys.stdin)["table"], not_found_ok=True)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
