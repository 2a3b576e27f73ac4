"""What was measured, as tables: aligned for a terminal, or in Markdown."""

import statistics
from dataclasses import dataclass

P99_TIMES_MAX = 2
GAP_MS_MAX = 800
P999_MS_MAX = 50
START_S_MAX = 10
MANY_KEYS_RATIO = 0.8
FOLLOWER_RATIO = 0.85


@dataclass
class Table:
    title: str
    headings: list
    rows: list
    notes: str = ""

    def show(self, markdown):
        cells = [self.headings, *([str(cell) for cell in row] for row in self.rows)]
        if markdown:
            lines = ["| " + " | ".join(row) + " |" for row in cells]
            lines.insert(1, "|---" + "|---:" * (len(self.headings) - 1) + "|")
            begin = f"### {self.title}\n\n"
        else:
            widths = [max(len(row[column]) for row in cells) for column in range(len(self.headings))]
            lines = [
                "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                          for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
                for row in cells
            ]
            begin = f"{self.title}\n\n"
        return begin + "\n".join(lines) + (f"\n\n{self.notes}" if self.notes else "")


def median(figures, name):
    return statistics.median(figure[name] for figure in figures)


def rate(figures):
    return median(figures, "per_second")


def ratio(row, other="Redis"):
    return rate(row["servers"]["Arakoon"]) / rate(row["servers"][other])


def mark(passes):
    return "pass" if passes else "MISS"


def number(value):
    return f"{value:,.0f}"


def repetitions(setting):
    count, seconds = setting["repetitions"], setting["seconds"]
    return f"Medians of {count} repetitions of {seconds} s in turns" if count > 1 else f"Once, {seconds} s"


def beside(results, other):
    """Rates, ratios and latencies of ours beside another server's."""
    rows = []
    for row in results["rows"]:
        theirs, ours = row["servers"][other], row["servers"]["Arakoon"]
        shown = compared = ratio(row, other)
        target = f"{row['target']:g}"
        if row["beside"]:
            first = next(it for it in results["rows"] if it["name"] == row["beside"])
            compared = rate(ours) / rate(first["servers"]["Arakoon"])
            target = f"{target} of ours at 50: {compared:.2f}"
        p99s = [median(figures, "p99_us") / 1000 for figures in (theirs, ours)]
        cells = [row["name"], number(rate(theirs)), number(rate(ours)), f"{shown:.2f}", target,
                 mark(compared >= row["target"]), f"{p99s[0]:.2f}", f"{p99s[1]:.2f}"]
        if other == "Redis":
            # The target is for 50 clients.
            holds = ", 50 clients" in row["name"]
            cells.append(mark(p99s[1] <= P99_TIMES_MAX * p99s[0]) if holds else "")
        rows.append(cells)
    headings = ["Load", f"{other} /s", "Arakoon /s", "Ratio", "Target", "", f"{other} p99 ms", "Arakoon p99 ms"]
    return headings + (["At most twice"] if other == "Redis" else []), rows


def processors(results, other):
    """Who used the processors."""
    rows = []
    for row in results["rows"]:
        for server in (other, "Arakoon"):
            figures = row["servers"][server]
            parts = figures[0]["cpu_s_per_million"]
            of_parts = ", ".join(
                f"{part} {statistics.median(it['cpu_s_per_million'][part] for it in figures):.1f}"
                for part in parts
            )
            rows.append([row["name"], server, of_parts, f"{median(figures, 'load_cpu'):.2f}",
                         f"{median(figures, 'keeper_cpu'):.2f}", f"{median(figures, 'idle_cpu'):.2f}"])
    return ["Load", "Server", "CPU s per million", "Load generator, cores", "Kept awake, cores",
            "Idle servers, cores"], rows


def tables(results):
    setting = results["setting"]
    how = f"{repetitions(setting)}, {setting['keys']:,} random keys, 100-byte values."
    found = []
    if redis := results.get("redis"):
        title = f"Three nodes ({setting['engine']}) beside one Redis {redis['redis']} that syncs every write"
        found.append(Table(title, *beside(redis, "Redis"), f"{how} Load: {redis['load']}, one thread."))
        found.append(Table(
            "Processor time beside Redis", *processors(redis, "Redis"),
            "Followers: both together. MSET counts as one command.",
        ))
    if etcd := results.get("etcd"):
        found.append(Table(
            f"Three nodes beside three of etcd {etcd['etcd']}", *beside(etcd, "etcd"),
            f"{how} etcd's load: compat/etcd-load, a connection per client, at the leader.",
        ))
        found.append(Table("Processor time beside etcd", *processors(etcd, "etcd")))
    if gap := results.get("gap"):
        found.append(Table(
            "kill -9 of the master, one client: time without an acknowledged write",
            ["Kills", "Median ms", "Longest ms", "Target: median ms", ""],
            [[len(gap["gaps_ms"]), number(gap["median_ms"]), number(gap["longest_ms"]), GAP_MS_MAX,
              mark(gap["median_ms"] <= GAP_MS_MAX)]],
        ))
    for trouble in results.get("follower", []):
        rows = []
        for row in trouble["rows"]:
            whole, troubled = rate(row["whole"]), rate(row["troubled"])
            p99s = [f"{median(row[part], 'p99_us') / 1000:.2f}" for part in ("whole", "troubled")]
            rows.append([row["name"], number(whole), number(troubled), f"{troubled / whole:.2f}",
                         FOLLOWER_RATIO, mark(troubled / whole >= FOLLOWER_RATIO), *p99s])
        found.append(Table(
            f"One follower {trouble['how'].replace('-', ' ')}",
            ["Load", "Whole /s", "Troubled /s", "Ratio", "Target", "", "Whole p99 ms", "Troubled p99 ms"],
            rows, how,
        ))
    if background := results.get("background"):
        rows = []
        for row in background["rows"]:
            figures = row["figures"]
            ms = [f"{figures[name] / 1000:.2f}" for name in ("p50_us", "p99_us", "p999_us", "max_us")]
            rows.append([row["name"], row["work"], number(figures["per_second"]), *ms,
                         mark(figures["p999_us"] <= P999_MS_MAX * 1000)])
        found.append(Table(
            f"Beside background work ({setting['engine']})",
            ["Load", "Work", "/s", "p50 ms", "p99 ms", "p99.9 ms", "Greatest ms", f"p99.9 at most {P999_MS_MAX} ms"],
            rows, "Once.",
        ))
    if many := results.get("many_keys"):
        found += of_many_keys(many, setting)
    return found


def of_many_keys(many, setting):
    few, keys = many["keys"]
    names = [f"{few} keys", f"{keys} keys"]
    rows = []
    for row in many["rows"]:
        rates = [rate(row["servers"][name]) for name in names]
        p99s = [f"{median(row['servers'][name], 'p99_us') / 1000:.2f}" for name in names]
        rows.append([row["name"], *map(number, rates), f"{rates[1] / rates[0]:.2f}", MANY_KEYS_RATIO,
                     mark(rates[1] / rates[0] >= MANY_KEYS_RATIO), *p99s])
    yield Table(
        f"{keys:,} keys beside {few:,} ({setting['engine']}, cache {setting['cache']})",
        ["Load", f"{few:,}: /s", f"{keys:,}: /s", "Ratio", "Target", "", f"{few:,}: p99 ms", f"{keys:,}: p99 ms"],
        rows, f"{repetitions(setting)}.",
    )
    memory = many["resident_bytes"]
    mib = lambda sizes: [f"{size / 2**20:,.0f}" for size in sizes]
    yield Table(
        f"Memory of each node (VmRSS, MiB), {keys:,} keys",
        ["When", "n1", "n2", "n3"],
        [["empty", *mib(memory["empty"])], ["filled", *mib(memory["filled"])],
         ["after the load", *mib(memory["after_load"])],
         ["filled, per million keys", *mib(memory["per_million_keys"])]],
    )
    answering = [start["answering_s"] for start in many["starts"]]
    whole = [start["whole_s"] for start in many["starts"]]
    rebuild = many["rebuild"]
    yield Table(
        f"Start with {keys:,} keys after kill -9 of all nodes",
        ["How", "Answers after s (longest)", "Up to date after s (longest)", "Target s", ""],
        [[f"process crash, {len(answering)} times", f"{max(answering):.1f}", f"{max(whole):.1f}",
          START_S_MAX, mark(max(answering) <= START_S_MAX)],
         ["store lost on all nodes, once", f"{rebuild['answering_s']:.1f}", f"{rebuild['whole_s']:.1f}", "", ""]],
        "A lost store is made anew from head and log, as after a power cut.",
    )


def text(results, markdown):
    machine = results["machine"]
    about = (f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, Linux "
             f"{machine['kernel']}; the disk makes {number(machine['syncs_per_second'])} appended blocks "
             f"of 4 KiB durable a second. {machine['program']}.")
    return "\n\n".join([about, *(table.show(markdown) for table in tables(results))])
