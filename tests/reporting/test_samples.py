from mrt_pipeline.reporting.samples import render_traces


def test_a_trace_is_read_episode_by_episode(make_labelled):
    trace = make_labelled((0.25, 0.5, 0.125), boundaries=[0, 2, 3], reward=1.0)
    text = render_traces([trace, trace], lambda ids: "-".join(map(str, ids)))
    first, second = text.split("\n\n")
    assert first == second
    lines = [line.strip() for line in first.splitlines()]
    assert lines[0].startswith("1 2 3 make 10") and "[correct, stopped by stop]" in lines[0]
    assert lines[1:] == ["J 0.25", "J 0.50 (+0.25)  6-7", "J 0.12 (-0.38)  8", "answer: a"]
