"""The matrix and the snippets in docs/clients.md."""

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "clients.md"
LANGUAGES = {".py": "python", ".mjs": "js", ".rs": "rust", ".go": "go", ".java": "java"}
COLUMNS = ["basics", "8 MiB value", "pipeline", "MULTI and WATCH", "expiry", "scan"]


def replace(text, mark, inside):
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"{PAGE} has no {begin}"
    return pattern.sub(lambda _: f"{begin}\n{inside}\n{end}", text)


def cell(features, known, column):
    of = {name: ok for name, (ok, _) in features.items() if name.split(",")[0] == column}
    if not of:
        return ""
    versions = sorted({name.rsplit("RESP", 1)[1] for name in of if "RESP" in name})
    if all(of.values()):
        return "RESP" + " and ".join(versions) if versions else "yes"
    return f"no: {known[column]}" if column in known else "FAILS"


def matrix(results):
    lines = ["| Client | " + " | ".join(COLUMNS) + " | other |", "|---" * (len(COLUMNS) + 2) + "|"]
    failovers = [
        "| Client | without an answer | acknowledged and lost | failed (applied all the same) | applied twice |",
        "|---|---|---|---|---|",
    ]
    for client, features, failover in results:
        if isinstance(features, str):
            lines.append(f"| {client.name} | not run: {features} |" + " |" * len(COLUMNS))
            continue
        cells = [cell(features, client.known, column) for column in COLUMNS]
        shown = {*COLUMNS, "goes on after a failover"}
        others = {name: ok for name, (ok, _) in features.items() if name.split(",")[0] not in shown}
        def show(name, ok):
            known = client.known.get(name)
            return f"`{name}`" if ok else f"`{name}` no: {known}" if known else f"`{name}` FAILS"

        other = ", ".join(show(name, ok) for name, ok in others.items())
        lines.append(f"| {client.name} | " + " | ".join(cells) + f" | {other} |")
        if failover:
            failovers.append(
                f"| {client.name} | {failover['gap_ms']} ms | {failover['lost']} of "
                f"{failover['acknowledged']} | {failover['failed']} "
                f"({failover['failed_but_applied']}) | {failover['applied_twice']} |"
            )
    return "\n".join(lines + [""] + failovers)


def snippets(results):
    """Each stands in a client's file between `snippet: TITLE` and `end`, in comments."""
    parts, seen = [], set()
    for source in (client.source for client, *_ in results):
        if not source or source in seen:
            continue
        seen.add(source)
        language = LANGUAGES[Path(source).suffix]
        text = (HERE / source).read_text()
        pattern = r"^ *(?:#|//) snippet: ([^\n]*)\n(.*?)^ *(?:#|//) end$"
        for title, code in re.findall(pattern, text, re.DOTALL | re.MULTILINE):
            parts.append(f"### {title}\n\nFrom `compat/{source}`:\n\n```{language}\n{textwrap.dedent(code).strip()}\n```")
    return "\n\n".join(parts)


def write(results):
    text = PAGE.read_text()
    text = replace(text, "matrix", matrix(results))
    text = replace(text, "snippets", snippets(results))
    PAGE.write_text(text)
