"""A bar chart of the ratios as SVG, with nothing but text: the same results, the same bytes."""

from html import escape

from speed.report import ratio

BAR, GAP, LEFT, PLOT, RIGHT, TOP = 18, 8, 250, 420, 70, 64
OURS, TARGET, REFERENCE = "#2b6cb0", "#c05621", "#555"


def svg(results):
    """Ours as a share of Redis', with the targets, and beside etcd's as multiples."""
    groups = []
    if redis := results.get("redis"):
        bars = [(row["name"], ratio(row), None if row["beside"] else row["target"]) for row in redis["rows"]]
        groups.append(("Three nodes of Arakoon beside one Redis that syncs every write (1.0: as fast)", bars))
    if etcd := results.get("etcd"):
        bars = [(row["name"], ratio(row, "etcd"), row["target"]) for row in etcd["rows"]]
        groups.append(("Three nodes of Arakoon beside three of etcd (1.0: as fast)", bars))
    if not groups:
        raise SystemExit("--plot needs results beside Redis or etcd")
    parts, y = [], 0
    for title, bars in groups:
        part, y = group(title, bars, y)
        parts += part
    width = LEFT + PLOT + RIGHT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{y}" fill="white"/>', *parts, "</svg>", "",
    ])


def group(title, bars, y):
    highest = max(1.0, *(value for _, value, _ in bars), *(target or 0 for _, _, target in bars))
    x = lambda value: round(LEFT + PLOT * value / highest, 1)
    top, bottom = y + TOP, y + TOP + len(bars) * (BAR + GAP)
    parts = [
        f'<text x="12" y="{y + 24}" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<rect x="12" y="{y + 36}" width="12" height="12" fill="{OURS}"/>',
        f'<text x="30" y="{y + 46}">Arakoon, ratio of medians</text>',
        f'<rect x="190" y="{y + 34}" width="3" height="16" fill="{TARGET}"/>',
        f'<text x="200" y="{y + 46}">target</text>',
    ]
    # Over the bars, but below the labels.
    labels = [
        f'<line x1="{x(1)}" x2="{x(1)}" y1="{top - 6}" y2="{bottom}" stroke="{REFERENCE}" stroke-dasharray="4 3"/>'
    ]
    for place, (name, value, target) in enumerate(bars):
        at = top + place * (BAR + GAP)
        text_x, text_y = round(max(x(value), x(target or 0)) + 6, 1), at + 13
        parts += [
            f'<text x="{LEFT - 8}" y="{text_y}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{at}" width="{round(x(value) - LEFT, 1)}" height="{BAR}" fill="{OURS}"/>',
        ]
        labels += [
            f'<rect x="{text_x - 1}" y="{at + 2}" width="32" height="{BAR - 4}" fill="white"/>',
            f'<text x="{text_x}" y="{text_y}">{value:.2f}</text>',
        ]
        if target:
            labels.append(
                f'<rect x="{x(target) - 1.5}" y="{at - 2}" width="3" height="{BAR + 4}" fill="{TARGET}"/>'
            )
    return parts + labels, bottom + 16
