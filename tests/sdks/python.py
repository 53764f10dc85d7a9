"""Drives segment-analytics-python: batches to /v1/batch, key in the header and in the body, gzip where asked."""

import argparse
import decimal
import datetime
import enum
import json
import os
import pathlib
import sys
import threading

from segment.analytics.client import Client

DEADLINE_S = 90


class Plan(enum.Enum):
    PREMIUM = "premium"


def native_values():
    """Values that only Python can hold; tests/it/sdks.rs knows what they must become."""
    return {
        "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc),
        "date": datetime.date(2026, 1, 2),
        "decimal": decimal.Decimal("19.99"),
        "enum": Plan.PREMIUM,
        "tuple": (1, "two"),
        "nan": float("nan"),
        "infinity": float("-inf"),
        "i64_min": -(2**63),
        "u64_max": 2**64 - 1,
        "above_safe": 2**53 + 1,
        "cut_emoji": "\ud83d",
        "deep": nested(64),
    }


def nested(levels):
    return "bottom" if levels == 0 else {"d": nested(levels - 1)}


def calls():
    """The calls of calls.json and its extra tracks."""
    script = json.loads(pathlib.Path(__file__).with_name("calls.json").read_text("utf-8"))
    yield from script["calls"]
    user_id = next(call["userId"] for call in script["calls"] if call["id"] == "track")
    for n in range(script["extras"]):
        yield {
            "id": f"extra-{n}",
            "type": "track",
            "userId": user_id,
            "event": "Extra",
            "properties": {"n": n, "total": n + 0.5},
        }


def arguments(call, message_id):
    """A call as the keyword arguments of Client's methods."""
    names = {
        "userId": "user_id",
        "anonymousId": "anonymous_id",
        "groupId": "group_id",
        "previousId": "previous_id",
    }
    call = {names.get(key, key): value for key, value in call.items() if key not in ("id", "type")}
    if call.get("timestamp"):
        call["timestamp"] = datetime.datetime.fromisoformat(call["timestamp"].replace("Z", "+00:00"))
    return call | {"message_id": message_id}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--write-key", required=True)
    args = parser.parse_args()

    sent, errors = [], []

    def finish():
        print(json.dumps({"sdk": "python", "sent": sent, "errors": errors}), flush=True)

    def give_up():
        errors.append(f"not done after {DEADLINE_S} s")
        finish()
        os._exit(1)

    deadline = threading.Timer(DEADLINE_S, give_up)
    deadline.daemon = True
    deadline.start()

    def on_error(error, _batch):
        errors.append(repr(error))

    clients = [
        Client(args.write_key, host=args.endpoint, on_error=on_error, gzip=gzip, upload_size=20, upload_interval=0.2)
        for gzip in (False, True)
    ]
    for n, call in enumerate(calls()):
        message_id = f"python-{call['id']}"
        keywords = arguments(call, message_id)
        if call["id"] == "native":
            keywords["properties"] = keywords["properties"] | native_values()
        accepted, _ = getattr(clients[n % 2], call["type"])(**keywords)
        if not accepted:
            errors.append(f"{message_id}: the SDK's queue is full")
        keys = ("id", "type", "userId", "anonymousId", "event", "name")
        sent.append({key: call[key] for key in keys if key in call} | {"messageId": message_id})
    for client in clients:
        client.flush()
        client.join()
    finish()
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
