import json
import re
from html.parser import HTMLParser

import pytest

from mrt_pipeline.auditing.audit import audit
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.reporting.audit import audit_report
from mrt_pipeline.reporting.page import audit_page
from mrt_pipeline.reporting.svg import Line, line_chart, stacked_bar, ticks

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>]]>--></style>{{ data }}\u2028&lt;"


def traces(n, gold="5", text="So the answer is 5.\n\nWait, no.", per_problem=2):
    return [
        Trace(
            f"Question {i // per_problem}: {HOSTILE}", (gold,) if gold else (), f"{HOSTILE} {text}", HOSTILE, i % 3 > 0
        )
        for i in range(n)
    ]


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))


@pytest.mark.parametrize("gold", ["5", ""])
def test_what_was_written_is_text_and_nothing_is_loaded(gold):
    page = audit_page(audit(traces(8, gold), n_resamples=20))
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.seen]
    assert names.count("script") == 2 and "img" not in names and "link" not in names and "iframe" not in names
    assert not any(key.startswith("on") or key in ("src", "href") for _, attributes in tags.seen for key in attributes)
    policy = next(a["content"] for tag, a in tags.seen if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    data = data_of(page)
    assert data["questions"]["0"] == f"Question 0: {HOSTILE}"
    assert any(HOSTILE[:20] in step["text"] for step in data["thoughts"][0]["steps"])
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_the_viewer_has_the_whole_thought_with_j_after_each_paragraph():
    thought = "Let me see.\n\nWait.\n\nA.\n\nWait, so the answer is 5.\n\nDone."
    page = audit_page(audit([Trace("q", ("5",), thought, "\\boxed{5}", True)], n_resamples=20))
    (shown,) = data_of(page)["thoughts"]
    assert "\n\n".join(step["text"] for step in shown["steps"]) == thought
    assert [step["j"] for step in shown["steps"]] == [0, 0, 0, 1, 1]
    assert [step["episode"] for step in shown["steps"]] == [True, False, False, True, False]
    assert shown["answer"] == "\\boxed{5}" and "right" in shown["summary"]


def test_the_page_stays_small_however_much_there_is():
    long = traces(150, text="well " * 7_000, per_problem=1)
    page = audit_page(audit(long, n_resamples=20))
    data = data_of(page)
    assert len(data["thoughts"]) == 60 and len(page) < 5_000_000
    assert data["thoughts"][0]["steps"][-1]["text"].endswith("more characters")


def test_problems_of_every_cause_are_among_the_thoughts():
    late = [Trace(f"late {i}", ("5",), "a " * 40 + "\n\nthe answer is 5.", "5", True) for i in range(100)]
    lost = [
        Trace(f"lost {i}", ("5",), "the answer is 5.\n\n" + "b " * 40 + "the answer is 6.", "6", True) for i in range(3)
    ]
    found = audit(late + lost, n_resamples=20)
    shown = {found.problems["cause"][thought["problem"]] for thought in data_of(audit_page(found))["thoughts"]}
    assert shown == set(found.problems["cause"]) and len(shown) > 1


def test_records_that_could_not_be_read_are_named(tmp_path):
    good = json.dumps({"question": "q", "gold": "5", "thought": "the answer is 5", "answer": "5"})
    (tmp_path / "t.jsonl").write_text(f"{good}\n<b>no json\n")
    found = audit(str(tmp_path / "t.jsonl"), n_resamples=20)
    page = audit_page(found)
    assert "1 records could not be read" in page and "t.jsonl, line 2" in page and "<b>" not in page.split("<b>")[0]
    assert "1 records could not be read" in audit_report(found)


def test_the_report_has_the_numbers_of_the_page():
    found = audit(traces(12), n_resamples=20)
    report = audit_report(found)
    assert found.verdict in report and f"{found.numbers['regret'][0]:.3f}" in report
    assert report.count("| ") > 20 and "votes" in report


def test_charts():
    chart = line_chart(
        [Line("<a>", [1, 2, 4], [0, 0.5, 1], [0, 0.4, 1], [0, 0.6, 1]), Line("b", [1, 4], [1, 1])], "x", "<y>"
    )
    assert (
        chart.count("<polyline") == 2 and chart.count("<polygon") == 1 and "<a>" not in chart and "&lt;y&gt;" in chart
    )
    bar = stacked_bar([("a", 0.25, "red"), ("b", 0.75, "blue")])
    assert re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', bar) == [("0.000", "25.000"), ("25.000", "75.000")]


@pytest.mark.parametrize("most", [1, 3, 7, 10, 99, 108, 1000, 16384, 123456])
def test_ticks_are_few_round_and_reach_the_end(most):
    found = ticks(most)
    assert found[0] == 0 and found[-1] <= most and 2 <= len(found) <= 7
    assert found[1] * 10 > most or len(found) > 5
