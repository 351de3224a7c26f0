#!/usr/bin/env bash
# kombu 5.7.0 (Python 3.11): of the topic "a.#", the message "a" does not arrive, unless the broker is RabbitMQ.
#
# Guess: a topic exchange of kombu's own transports (memory, Redis, the file system) matches as AMQP says: "*" stands for one word, and "#" for any
# number of words, none included. "orders.#" gets "orders" and all that is below.
# Seen: the pattern becomes a regular expression in which the dot before "#" must be there, and the one behind it too. Messages that no other queue takes
# are dropped without a word, and an application that moves from RabbitMQ to Redis loses them:
#     #              orders, orders.paid, orders.paid.late
#     orders.*       orders.paid
#     orders.#       orders.paid, orders.paid.late
#     #.late         orders.paid.late
#     orders.#.paid  nothing
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kombu==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from kombu import Connection, Exchange, Queue

with Connection("memory://") as connection:
    channel = connection.channel()
    topics = Exchange("topics", type="topic")
    queues = [Queue(key, topics, routing_key=key)(channel) for key in ("#", "orders.*", "orders.#", "#.late", "orders.#.paid")]
    for queue in queues:
        queue.declare()
    for key in ("orders", "orders.paid", "orders.paid.late"):
        connection.Producer(channel).publish({}, exchange=topics, routing_key=key)
    for queue in queues:
        keys = []
        while message := queue.get(no_ack=True):
            keys.append(message.delivery_info["routing_key"])
        print(f"{queue.name:14}", ", ".join(keys) or "nothing")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
#              orders, orders.paid, orders.paid.late
orders.*       orders.paid
orders.#       orders.paid, orders.paid.late
#.late         orders.paid.late
orders.#.paid  nothing
SEEN
