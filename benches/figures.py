"""What was measured: figures with their limits, in tables, as text, JSON, CSV and Markdown.

Measures nothing and draws nothing.
"""

import csv
import json

HOLDS = {
    "at most": lambda value, limit: value <= limit,
    "below": lambda value, limit: value < limit,
    "at least": lambda value, limit: value >= limit,
}


def figure(value, unit, samples=None, goal=None):
    """One figure. goal: (a word of HOLDS, number). samples: what it is the median of."""
    made = {"value": value, "unit": unit}
    if samples:
        made |= {"least": min(samples), "most": max(samples), "rounds": len(samples)}
    if goal:
        sense, limit = goal
        made |= {"sense": sense, "limit": limit, "met": HOLDS[sense](value, limit)}
    return made


def table(name, title, key, columns, rows):
    """rows: [(case, {column: figure})]; a figure that is missing was not measured."""
    cells = [{"case": case, "figures": row} for case, row in rows]
    return {"name": name, "title": title, "key": key, "columns": columns, "rows": cells}


def show(value, unit):
    """A figure's value as a person reads it."""
    if unit == "us":
        if abs(value) < 1000:
            return f"{value:.0f} us"
        return f"{value / 1000:.2f} ms" if abs(value) < 1e6 else f"{value / 1e6:.2f} s"
    if unit == "x":
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    return f"{value:,.0f} {unit}"


def show_limit(cell):
    # A limit is a round number of its own unit: 10 ms, not 10.00 ms.
    limit, unit = cell["limit"], cell["unit"]
    if unit == "us":
        return f"{cell['sense']} {limit / 1000:g} ms"
    return f"{cell['sense']} {limit:,g}" if unit == "x" else f"{cell['sense']} {limit:,} {unit}"


def show_cell(cell, mark=("", "")):
    """A figure with its limit; `mark` goes around one that missed it."""
    if cell is None:
        return "-"
    text = show(cell["value"], cell["unit"])
    if "limit" in cell:
        text += f" ({show_limit(cell)})"
        if not cell["met"]:
            text = f"{mark[0]}{text} MISSED{mark[1]}"
    return text


def lines(made, mark=("", "")):
    """The table as lists of words: the head, then the rows."""
    yield [made["key"], *made["columns"]]
    for row in made["rows"]:
        yield [row["case"], *(show_cell(row["figures"].get(c), mark) for c in made["columns"])]


def as_text(made):
    words = list(lines(made))
    widths = [max(map(len, column)) for column in zip(*words)]
    out = [made["title"]]
    for line in words:
        first, *rest = (
            word.ljust(width) if n == 0 else word.rjust(width)
            for n, (word, width) in enumerate(zip(line, widths))
        )
        out.append("  " + "  ".join([first, *rest]))
    return "\n".join(out) + "\n"


def as_markdown(made):
    head, *rows = lines(made, ("**", "**"))
    out = [f"**{made['title']}**", ""]
    out.append(f"| {' | '.join(head)} |")
    out.append(f"| --- |{' ---: |' * (len(head) - 1)}")
    out += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(out) + "\n"


def cells(results):
    """Each figure with where it stands: (table, row, column, figure)."""
    for made in results["tables"]:
        for row in made["rows"]:
            for column, cell in row["figures"].items():
                yield made, row, column, cell


def missed(results):
    """The figures that missed their limits, a line each."""
    return [
        f"{made['name']}: {row['case']}: {column}: {show_cell(cell)}"
        for made, row, column, cell in cells(results)
        if not cell.get("met", True)
    ]


def write(results, directory):
    """results.json and results.csv."""
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    fields = ["value", "unit", "least", "most", "rounds", "sense", "limit", "met"]
    with open(directory / "results.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["table", "case", "figure", *fields])
        for made, row, column, cell in cells(results):
            out.writerow([made["name"], row["case"], column, *(cell.get(f, "") for f in fields)])
