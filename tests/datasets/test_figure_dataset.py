import plotly.graph_objects as go

from mrt_pipeline.datasets.figure_dataset import FigureDataset


def test_a_figure_is_saved_as_a_page_and_can_be_loaded_and_previewed(tmp_path):
    dataset = FigureDataset(filepath=str(tmp_path / "deep" / "figure.html"))
    assert not dataset.exists()
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout={"title": "two points"})
    dataset.save(figure)
    assert dataset.load() == figure
    assert "<html>" in (tmp_path / "deep" / "figure.html").read_text()
    preview = dataset.preview()
    assert preview["data"][0]["type"] == "scatter" and preview["data"][0]["x"] == [1, 2]
