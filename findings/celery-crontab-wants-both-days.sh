#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): a crontab line with a day of the month and a weekday runs twice a year, and not six times a month.
#
# Guess: crontab.from_string("0 0 1 * mon") runs when cron runs the same line: on the 1st, and on each Monday. cron joins the two fields
# with "or" where both are given.
# Seen: they are joined with "and": the schedule waits for a Monday that is the 1st. The line is accepted, and each field by itself does what
# cron's does:
#     0 0 1 * *    Thu 2026-01-01, Sun 2026-02-01, Sun 2026-03-01
#     0 0 * * mon  Mon 2026-01-05, Mon 2026-01-12, Mon 2026-01-19
#     0 0 1 * mon  Mon 2026-06-01, Mon 2027-02-01, Mon 2027-03-01
# Sunday as 7, which cron has too, is an error. "mon#1", which others read as the first Monday of a month, is taken for every Monday:
#     0 0 * * mon#1  Mon 2026-01-05, Mon 2026-01-12, Mon 2026-01-19
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0 kombu==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from datetime import datetime, timezone

from celery.schedules import crontab

for line in ("0 0 1 * *", "0 0 * * mon", "0 0 1 * mon", "0 0 * * mon#1"):
    now, runs = datetime(2025, 12, 31, 12, tzinfo=timezone.utc), []
    for _ in range(3):
        schedule = crontab.from_string(line)
        schedule.nowfun = lambda: now
        now += schedule.remaining_estimate(now)
        runs.append(f"{now:%a %Y-%m-%d}")
    print(f"{line:14}", ", ".join(runs))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
0 0 1 * *      Thu 2026-01-01, Sun 2026-02-01, Sun 2026-03-01
0 0 * * mon    Mon 2026-01-05, Mon 2026-01-12, Mon 2026-01-19
0 0 1 * mon    Mon 2026-06-01, Mon 2027-02-01, Mon 2027-03-01
0 0 * * mon#1  Mon 2026-01-05, Mon 2026-01-12, Mon 2026-01-19
SEEN
