"""An audit as one page that needs nothing else: no network, no server, any browser, wide or narrow.

Everything that a model or a file wrote is text here: in the HTML it is escaped, and the script sets it as text. The
page's own policy forbids it to load anything.
"""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
import pandas as pd

from mrt_pipeline.auditing.audit import Audit, needed, settled
from mrt_pipeline.auditing.measure import Measured
from mrt_pipeline.evaluation.regret_sources import SOURCES
from mrt_pipeline.reporting.svg import Line, line_chart, stacked_bar

_SHOWN = 60  # thoughts
_TEXT = 30_000  # characters of a thought that are shown
_ROWS = 2_000  # problems in the table
_QUESTION = 400
_MEANING = {
    "never_found": "never found",
    "found_late": "found late",
    "lost": "found and lost",
    "unsure": "found, not sure",
}


def audit_page(audit: Audit) -> str:
    """The page as HTML."""
    parts = [
        "<h1>How well the thinking is used</h1>",
        f'<p class="verdict">{escape(audit.verdict)}</p>',
        _cards(audit),
    ]
    if audit.graded:
        parts += [_curve(audit), _sources(audit), _stopping(audit), _voting(audit)]
    parts += [_precision(audit), _problems(audit), _viewer(), _method(audit)]
    template = files("mrt_pipeline.reporting").joinpath("page.html").read_text()
    data = json.dumps(_data(audit), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return template.replace("{{ body }}", "\n".join(filter(None, parts))).replace("{{ data }}", data)


def _cards(audit: Audit) -> str:
    """The numbers that fit on a hand, each with its interval."""
    unit, numbers = audit.unit, audit.numbers
    shown = [
        ("traces", f"{len(audit.thoughts):,}", f"{len(audit.problems):,} problems, {audit.graded:,} traces graded")
    ]

    def add(name: str, title: str, form: str) -> None:
        if name in numbers and not np.isnan(numbers[name][0]):
            mean, low, high = (format(value, form) for value in numbers[name])
            shown.append((title, mean, f"{low} to {high}"))

    add("accuracy", "accuracy", ".3f")
    add("regret", "regret", ".3f")
    add("after_share", f"{unit} after the find", ".1%")
    add("settled_share", f"{unit} after the final answer was first stated", ".1%")
    add("length", f"{unit} of a thought", ",.0f")
    add("episodes", "episodes of a thought", ".1f")
    add("cut_share", "thoughts cut off", ".1%")
    add("repeated", "paragraphs that repeat one", ".1%")
    add("stated_share", "thoughts that state an answer before their end", ".1%")
    cards = [
        f'<div class="card"><small>{escape(title)}</small><b>{escape(value)}</b><small>{escape(note)}</small></div>'
        for title, value, note in shown
    ]
    refused = ""
    if audit.refused:
        lines = "".join(f"<li>{escape(line[:300])}</li>" for line in audit.refused[:50])
        refused = (
            f"<details><summary>{len(audit.refused)} records could not be read</summary><ul>{lines}</ul></details>"
        )
    return f'<div class="cards">{"".join(cards)}</div>{refused}'


def _curve(audit: Audit) -> str:
    curve = audit.curve
    line = Line("accuracy", *(curve[name].tolist() for name in ("budget", "accuracy", "ci_low", "ci_high")))
    title = f"thinking {audit.unit} at which every thought is stopped"
    note = f"What a thought has stated when it is stopped. The longest has {audit.budget:,} {audit.unit}."
    return f'<h2>Accuracy at every budget</h2>{line_chart([line], title, "accuracy")}<p class="note">{note}</p>'


def _sources(audit: Audit) -> str:
    parts = [(_MEANING[name], audit.numbers[name][0], f"var(--{name})") for name in SOURCES]
    right = max(0.0, 1 - sum(size for _, size, _ in parts))
    bar = stacked_bar([*parts, ("right in time", right, "var(--right)")])
    return f"<h2>Where regret comes from</h2>{bar}"


def _stopping(audit: Audit) -> str:
    rows = [
        [f"{row.kept:.0%}", f"{row.budget:,}", f"{row.accuracy:.3f}", f"{row.saved:.1%}"]
        for row in audit.stopping.itertuples(index=False)
    ]
    heads = ["accuracy kept", f"stop at {audit.unit}", "accuracy", f"{audit.unit} saved"]
    return f"<h2>What stopping earlier would cost</h2>{_table(heads, rows)}"


def _voting(audit: Audit) -> str:
    if audit.voting.empty:
        return ""
    rows = [
        [str(row.k), f"{row.accuracy:.3f}", f"{row.ci_low:.3f} to {row.ci_high:.3f}", f"{row.spent:,.0f}"]
        for row in audit.voting.itertuples(index=False)
    ]
    heads = ["votes", "accuracy", "95 % interval", f"{audit.unit} of a problem"]
    return f"<h2>What voting would buy</h2>{_table(heads, rows)}"


def _precision(audit: Audit) -> str:
    """How wide the intervals are, and what narrower ones would take."""
    n, rows = len(audit.problems), []
    for name in ("accuracy", "regret", "after_share", "settled_share", "cut_share"):
        value = audit.numbers.get(name)
        if value is not None and not np.isnan(value[0]):
            half = (value[2] - value[1]) / 2
            rows.append([name.replace("_", " "), f"± {half:.3f}", f"{needed(value, n):,}"])
    heads = ["", "interval", "problems needed for ± .020"]
    return f"<h2>How sure this is</h2>{_table(heads, rows)}"


def _problems(audit: Audit) -> str:
    graded = bool(audit.graded)
    heads = ["question", "traces", f"{audit.unit}", "after final answer"]
    heads += ["accuracy", "regret", "cause"] if graded else []
    rows = []
    for row in audit.problems.head(_ROWS).itertuples(index=False):
        cells = [
            f'<td class="question">{escape(row.question[:_QUESTION])}</td>',
            _cell(row.n_traces, f"{row.n_traces}"),
            _cell(row.length, f"{row.length:,.0f}"),
            _cell(row.settled_share, "" if pd.isna(row.settled_share) else f"{row.settled_share:.0%}"),
        ]
        cause = str(row.cause)
        if graded:
            cells += [_cell(value, "" if pd.isna(value) else f"{value:.3f}") for value in (row.accuracy, row.regret)]
            cells.append(f"<td>{_MEANING.get(cause, '')}</td>")
        rows.append(f'<tr data-problem="{row.problem}" data-cause="{cause}">{"".join(cells)}</tr>')
    options = "".join(f'<option value="{name}">{_MEANING[name]}</option>' for name in SOURCES)
    causes = f'<select id="cause"{"" if graded else " hidden"}><option value="">every cause</option>{options}</select>'
    controls = f'<div class="controls"><input id="filter" placeholder="filter" aria-label="filter">{causes}</div>'
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    left = len(audit.problems) - _ROWS
    note = f'<p class="note">{left:,} more problems are not listed.</p>' if left > 0 else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    table = f'<div class="wide"><table id="problems">{body}</table></div>'
    return f"<h2>Problems</h2>{controls}{table}{note}"


def _viewer() -> str:
    choice = '<div class="controls"><select id="chosen" aria-label="problem"></select></div>'
    place = '<p id="question" class="note"></p><div id="thoughts" class="thoughts"></div>'
    return f'<h2 id="viewer">Thoughts</h2>{choice}{place}'


def _method(audit: Audit) -> str:
    said = (
        "J, the success of a thought so far, is 1 where the answer that the thought has stated last is right: a box, "
        "“the answer is ...”, “####”. At the end it is that of the final answer. Regret is the area between 1 and J "
        "over the budget. A find is the first paragraph after which J is 1. Intervals are of 95 %, over problems."
    )
    words = " Words are counted, as no tokenizer was given." if audit.unit == "words" else ""
    return f'<h2>How this was measured</h2><p class="note">{said}{words}</p>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: float, text: str) -> str:
    return f'<td data-value="{"" if pd.isna(value) else value}">{escape(text)}</td>'


def _data(audit: Audit) -> dict:
    """The questions and thoughts that the viewer shows."""
    chosen = shown_thoughts(audit)
    numbers = {item.problem for item in chosen}
    questions = {row.problem: row.question[:2_000] for row in audit.problems.itertuples() if row.problem in numbers}
    return {"questions": questions, "thoughts": [_thought(item, audit.unit) for item in chosen]}


def shown_thoughts(audit: Audit) -> list[Measured]:
    """As many thoughts as the page has room for, of each cause of regret in turn; problems with most regret first."""
    table = audit.problems
    order = "regret" if audit.graded else "settled_share"
    ranked = {
        name: rows.sort_values(order, ascending=False)["problem"].tolist() for name, rows in table.groupby("cause")
    }
    by_problem: dict[int, list[Measured]] = {}
    for item in audit.thoughts:
        by_problem.setdefault(item.problem, []).append(item)
    chosen: list[Measured] = []
    while any(ranked.values()) and len(chosen) < _SHOWN:
        for problems in ranked.values():
            if problems and len(chosen) < _SHOWN:
                chosen += by_problem[problems.pop(0)][: min(4, _SHOWN - len(chosen))]
    return chosen


def _thought(item: Measured, unit: str) -> dict:
    text, start = item.trace.thought, 0
    steps: list[dict[str, object]] = []
    episodes = {int(place) for place in item.episodes}
    for i, end in enumerate(item.ends[1:], start=1):
        part = text[start:end]
        if start + len(part) > _TEXT:
            steps.append(
                {"text": f"... {len(text) - start:,} more characters", "said": "", "j": None, "episode": False}
            )
            break
        j, answer = item.success[i], item.answers[i]
        known = None if np.isnan(j) else float(j)
        said = f"{int(item.steps[i]):,} {unit}" + (f", states {answer[:80]}" if answer else ", nothing stated yet")
        new = int(item.steps[i - 1]) in episodes
        steps.append({"text": part.strip("\n"), "said": said, "j": known, "episode": new})
        start = int(end)
    last, after = item.success[-1], settled(item)
    grade = "not graded" if np.isnan(last) else "right" if last == 1 else "wrong"
    end = "" if item.trace.finished else ", cut off"
    summary = f"{item.n_pieces:,} {unit}{end}; final answer {item.answers[-1][:80] or 'none'}, {grade}"
    if not np.isnan(after):
        summary += f"; {after:.0%} of the thought comes after it was first stated"
    return {
        "problem": item.problem,
        "title": f"Gold answer {', '.join(item.trace.golds)[:80]}" if item.trace.golds else "Thought",
        "summary": summary,
        "steps": steps,
        "answer": item.trace.answer.strip()[:2_000],
        "j": None if np.isnan(last) else float(last),
    }
