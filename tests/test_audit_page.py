"""The page of an audit in a real browser: `pytest -n 0 -m browser`. With MRT_SCREENSHOTS=<folder> pictures are kept."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mrt_pipeline.auditing.audit import audit
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.reporting.page import audit_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="there is no chromium")]
WIDE, NARROW = {"width": 1100, "height": 900}, {"width": 390, "height": 844}
SUMS = [(a, b) for a in range(12, 18) for b in range(23, 27)]


def thought(a, b, kind):
    """A few paragraphs that find a + b early, late, or lose it again."""
    right, wrong = a + b, a + b + 10
    said = {"late": [wrong, None, None, right], "early": [right, None, None, right], "lost": [right, None, wrong]}[kind]
    paragraphs = [
        f"{'Wait, let me' if i else 'Let me'} add {a} and {b}: {a % 10} and {b % 10} are {a % 10 + b % 10}"
        + (f", so the answer is {answer}." if answer else ". I should check this again.")
        for i, answer in enumerate(said)
    ]
    return "\n\n".join(paragraphs), said[-1]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of made-up thoughts, some of which hold markup."""
    traces = []
    for i, (a, b) in enumerate(SUMS):
        text, final = thought(a, b, ("late", "early", "lost")[i % 3])
        if i == 0:
            text = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">\n\n" + text
        traces.append(Trace(f"What is {a} + {b}?", (str(a + b),), text, f"The answer is \\boxed{{{final}}}.", True))
    path = tmp_path_factory.mktemp("audit") / "report.html"
    path.write_text(audit_page(audit(traces, n_resamples=200)))
    return path


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def page(request, browser, report):
    page, errors = browser.new_page(viewport=request.param, offline=True), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    yield page
    assert errors == [] and page.title() == "How well the thinking is used"  # nothing of a thought was run
    assert page.evaluate("document.documentElement.scrollWidth") == request.param["width"]
    page.close()


def keep(page, name):
    if folder := os.environ.get("MRT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_verdict_is_read_first(page):
    assert "of the thinking words come after the right answer was found" in page.locator(".verdict").inner_text()
    assert page.locator(".verdict").bounding_box()["y"] < 200
    keep(page, f"audit-{page.viewport_size['width']}")


def test_problems_are_sorted_filtered_and_opened(page):
    rows = page.locator("#problems tbody tr:visible")
    expect(rows).to_have_count(len(SUMS))
    regret = [head.strip() for head in page.locator("#problems th").all_inner_texts()].index("regret")
    page.locator("#problems th").nth(regret).click()
    values = [float(row.locator("td").nth(regret).inner_text()) for row in rows.all()]
    assert values == sorted(values, reverse=True) and len({*values}) > 1
    page.locator("#problems th").nth(regret).click()
    assert [float(row.locator("td").nth(regret).inner_text()) for row in rows.all()] == sorted(values)
    page.locator("#cause").select_option("lost")
    expect(rows).to_have_count(len(SUMS) // 3)
    question = rows.nth(1).locator("td").first.inner_text()
    page.locator("#filter").fill(question)
    expect(rows).to_have_count(1)
    rows.first.click()
    expect(page.locator("#question")).to_have_text(question)
    expect(page.locator("#problems tr.chosen")).to_have_count(1)


def test_a_thought_is_coloured_by_whether_it_is_right_so_far(page):
    a, b = SUMS[2]  # lost
    page.locator("#chosen").select_option(label=f"What is {a} + {b}?")
    steps = page.locator("#thoughts .step")
    colours = [step.evaluate("e => getComputedStyle(e).borderLeftColor") for step in steps.all()]
    assert len(colours) == 4 and colours[0] == colours[1] != colours[2] == colours[3]
    expect(steps.nth(0)).to_contain_text(f"states {a + b}")
    page.locator("#viewer").evaluate("e => e.scrollIntoView()")
    keep(page, f"audit-thought-{page.viewport_size['width']}")


def test_markup_in_a_thought_is_shown_as_text(page):
    a, b = SUMS[0]
    page.locator("#chosen").select_option(label=f"What is {a} + {b}?")
    expect(page.locator("#thoughts .step").first).to_contain_text("<script>document.title = 'run'</script><img src=x")
    assert page.locator("#thoughts img, #thoughts script").count() == 0
