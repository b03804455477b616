"""What became of the rows, for people."""

from __future__ import annotations

from pathlib import Path

from sandbox.chaos.plan import Row, State, commits, counts, plan
from starter import console


def table(state: State, rows: list[Row]) -> str:
    """The rows by part and fault, and every one that failed."""
    lines = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.fault), []).append(row)
    for (part, fault), members in groups.items():
        found = [state.results.get(row.id) for row in members]
        times = sorted(result.took for result in found if result and result.verdict == "passed")
        counts = [
            sum(bool(result and result.verdict == verdict) for result in found) for verdict in ("passed", "failed")
        ]
        middle = f"{times[len(times) // 2]:.0f} s" if times else "-"
        lines.append([part, fault, str(len(members)), *map(str, counts), str(len(members) - sum(counts)), middle])
    text = console.table(["PART", "FAULT", "ROWS", "PASSED", "FAILED", "NOT RUN", "TO REST, MEDIAN"], lines)
    failed = [
        f"FAILED  {row.id}\n        {result.detail}"
        for row in rows
        if (result := state.results.get(row.id)) and result.verdict == "failed"
    ]
    return "\n".join([text, *failed])


def report(path: Path) -> int:
    """Prints the table; exit code 1 when a row failed, 3 when none did but some were not run, else 0."""
    if not path.exists():
        console.result("no row was run yet")
        return 3
    state = State.model_validate_json(path.read_text())
    rows = plan(state.steps, state.seed)
    console.result(table(state, rows))
    found = counts(state, rows)
    console.result(
        f"seed {state.seed}: {len(rows)} rows, {found['passed']} passed, {found['failed']} failed, "
        f"{found['not run']} not run"
    )
    if ran := commits(state, rows):
        console.result("rows by commit: " + ", ".join(f"{commit} {number}" for commit, number in ran.items()))
    return 1 if found["failed"] else 3 if found["not run"] else 0
