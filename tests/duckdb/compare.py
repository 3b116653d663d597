"""Computes windows in SQL and compares them row by row with what the processor writes: no row missing, none extra,
every value equal to the last digit. Shares no code with the engine; DuckDB reads the same source data.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parent.parent.parent
TRACE = ROOT / "config/data/azure-llm-inference-2023/conv.csv"
DIFFERENCES_SHOWN = 5
DECIMAL = "DECIMAL(30,12)"

# (name, function, column of the table `events`)
Measure = tuple[str, str, str]


@dataclass
class Window:
    """Tumbling or sliding by size and slide, or a session by its gap."""

    name: str
    size_ms: int = 0
    slide_ms: int = 0
    gap_ms: int = 0


@dataclass
class Case:
    name: str
    manifest: Path
    source: str
    events: str
    keys: list[str]
    windows: list[Window]
    measures: list[Measure]
    # Laid over the manifest.
    settings: tuple[str, ...] = ()


def trace_events() -> str:
    """Times have 100 ns digits: as nanoseconds, floored to milliseconds."""
    return f"""
        CREATE TABLE events AS
        SELECT epoch_ns(CAST("TIMESTAMP" AS TIMESTAMP_NS)) // 1000000 AS time_ms, 'conv' AS service,
               CAST(ContextTokens AS {DECIMAL}) AS context, CAST(GeneratedTokens AS {DECIMAL}) AS generated
        FROM read_csv('{TRACE}', header = true, columns = {{
            'TIMESTAMP': 'VARCHAR', 'ContextTokens': 'BIGINT', 'GeneratedTokens': 'BIGINT'}})"""


def traffic_events(path: Path) -> str:
    """Decimals are read as text: straight from JSON, DuckDB would take them through a binary double."""
    return f"""
        CREATE TABLE events AS
        SELECT epoch_ms(CAST(replace(ts, 'Z', '') AS TIMESTAMP)) AS time_ms, tenant, model,
               CAST(cost_usd AS {DECIMAL}) AS cost, CAST(latency_ms AS {DECIMAL}) AS latency, CAST(usage.prompt AS {DECIMAL}) AS prompt
        FROM read_json('{path}', format = 'newline_delimited', columns = {{
            ts: 'VARCHAR', tenant: 'VARCHAR', model: 'VARCHAR', cost_usd: 'VARCHAR', latency_ms: 'VARCHAR',
            usage: 'STRUCT(prompt BIGINT)'}})"""


def measure_sql(measure: Measure) -> str:
    name, function, column = measure
    if function == "count":
        return f"CAST(count(*) AS {DECIMAL}) AS {name}"
    if function != "average":
        return f"{function}({column}) AS {name}"
    # An exact average, half-even at the twelfth digit: the digits of the sum as an integer, divided as integers.
    digits = f"CAST(replace(CAST(sum({column}) AS VARCHAR), '.', '') AS HUGEINT)"
    quotient, rest = f"({digits} // count({column}))", f"({digits} % count({column}))"
    up = f"(2 * {rest} > count({column}) OR (2 * {rest} = count({column}) AND {quotient} % 2 = 1))"
    return f"CAST({quotient} + CAST({up} AS INTEGER) AS VARCHAR) AS {name}"


def assigned_sql(case: Case, window: Window) -> str:
    """Every event with `start` and `end` of each window that it is in."""
    if not window.gap_ms:
        return f"""
            SELECT *, unnest(range(time_ms - time_ms % {window.slide_ms}, time_ms - {window.size_ms},
                                   -{window.slide_ms})) AS start, start + {window.size_ms} AS "end"
            FROM events"""
    keys = ", ".join(case.keys)
    # Events of one time are peers of the running sum, so their order among themselves does not matter.
    return f"""
        SELECT *, min(time_ms) OVER session AS start, max(time_ms) OVER session + {window.gap_ms} AS "end"
        FROM (SELECT *, sum(begins) OVER (PARTITION BY {keys} ORDER BY time_ms) AS number
              FROM (SELECT *, CAST(coalesce(time_ms - lag(time_ms) OVER (PARTITION BY {keys} ORDER BY time_ms)
                                            > {window.gap_ms}, true) AS INTEGER) AS begins
                    FROM events))
        WINDOW session AS (PARTITION BY {keys}, number)"""


def expected(connection: duckdb.DuckDBPyConnection, case: Case, window: Window) -> dict[tuple, dict[str, str]]:
    """Values as text by (start, end, key…)."""
    names = [name for name, _, _ in case.measures]
    rows = connection.execute(f"""
        WITH assigned AS ({assigned_sql(case, window)})
        SELECT start, "end", {', '.join(case.keys + [measure_sql(measure) for measure in case.measures])}
        FROM assigned GROUP BY start, "end", {', '.join(case.keys)}""").fetchall()
    result = {}
    identity_length = 2 + len(case.keys)
    for row in rows:
        identity, values = row[:identity_length], row[identity_length:]
        averages = [function == "average" for _, function, _ in case.measures]
        numbers = [Decimal(value).scaleb(-12) if average else value for value, average in zip(values, averages)]
        result[identity] = dict(zip(names, map(plain, numbers)))
    return result


def plain(number: Decimal) -> str:
    """Digits without trailing zeros and without an exponent."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def found(binary: str, case: Case) -> dict[str, dict[tuple, dict[str, str]]]:
    """The processor's results, numbers as the text it wrote, by window."""
    command = [binary, "run", "-f", str(case.manifest), "--input", case.source]
    for setting in case.settings:
        command += ["--set", setting]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stderr}")
    print(f"{case.name}: {run.stderr.strip()}")
    results: dict[str, dict[tuple, dict[str, str]]] = {window.name: {} for window in case.windows}
    for line in run.stdout.splitlines():
        record = json.loads(line, parse_float=str, parse_int=str)
        identity = (int(record["start"]), int(record["end"]), *record["key"].values())
        of_window = results[record["window"]]
        # A session that grew is taken back; nothing else fires twice here.
        if record["op"] == "Retract" and of_window.get(identity) == record["values"]:
            del of_window[identity]
        elif record["op"] == "Upsert" and identity not in of_window:
            of_window[identity] = record["values"]
        else:
            sys.exit(f"{case.name}: one pane per window and key was expected, found another: {line}")
    return results


def compare(case: Case, window: Window, sql: dict, engine: dict) -> bool:
    missing, extra = sorted(sql.keys() - engine.keys()), sorted(engine.keys() - sql.keys())
    different = sorted(key for key in sql.keys() & engine.keys() if sql[key] != engine[key])
    right = bool(sql) and not (missing or extra or different)
    print(f"{'ok  ' if right else 'FAIL'} {case.name}, window {window.name}: {len(sql)} rows in SQL, {len(missing)} missing, "
          f"{len(extra)} extra, {len(different)} different")
    for key in missing[:DIFFERENCES_SHOWN]:
        print(f"       missing   {key}: {sql[key]}")
    for key in extra[:DIFFERENCES_SHOWN]:
        print(f"       extra     {key}: {engine[key]}")
    for key in different[:DIFFERENCES_SHOWN]:
        print(f"       different {key}: SQL {sql[key]}, processor {engine[key]}")
    return right


def main(binary: str) -> int:
    passed = failed = 0
    with tempfile.TemporaryDirectory() as directory:
        traffic = Path(directory) / "traffic.jsonl"
        options = "events=60000,rate=200,disorder=3000,tenants=5,models=4,seed=11"
        subprocess.run([binary, "generate", options, "--output", str(traffic)], check=True)
        cases = [
            Case(
                "real trace", ROOT / "config/samples/azure-trace.yaml", f"trace:{TRACE}", trace_events(), ["service"],
                [Window("minute", 60_000, 60_000), Window("ten-minutes", 600_000, 60_000), Window("busy", gap_ms=500)],
                [("requests", "count", ""), ("context_tokens", "sum", "context"), ("generated_tokens", "sum", "generated"),
                 ("context_average", "average", "context"), ("generated_min", "min", "generated"),
                 ("generated_max", "max", "generated")],
                ("windows=[{name: minute, tumbling: {size: 1m}}, {name: ten-minutes, sliding: {size: 10m, slide: 1m}}, "
                 "{name: busy, session: {gap: 500ms}}]",),
            ),
            Case(
                "generated traffic", Path(__file__).parent / "traffic.yaml", str(traffic), traffic_events(traffic),
                ["tenant", "model"],
                [Window("ten-seconds", 10_000, 10_000), Window("half-minute", 30_000, 7_000), Window("visit", gap_ms=400)],
                [("requests", "count", ""), ("cost", "sum", "cost"), ("cost_average", "average", "cost"),
                 ("latency_average", "average", "latency"), ("latency_min", "min", "latency"),
                 ("latency_max", "max", "latency"), ("prompt", "sum", "prompt")],
            ),
        ]
        for case in cases:
            connection = duckdb.connect()
            connection.execute(case.events)
            engine = found(binary, case)
            for window in case.windows:
                right = compare(case, window, expected(connection, case, window), engine[window.name])
                passed, failed = passed + right, failed + (not right)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
