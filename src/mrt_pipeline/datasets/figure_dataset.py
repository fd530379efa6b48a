"""Figures as pages: HTML for the browser and for MLflow, with Plotly's JSON beside it, from which they are loaded."""

import json
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from kedro_datasets._typing import PlotlyPreview
from kedro_datasets.plotly import HTMLDataset


class FigureDataset(HTMLDataset):
    """`plotly.HTMLDataset` that can be loaded and previewed. Local files only."""

    def save(self, data: go.Figure) -> None:
        """Write the page, and the JSON."""
        super().save(data)
        self._json.write_text(data.to_json())

    def load(self) -> go.Figure:
        """The figure, from the JSON."""
        return plotly.io.from_json(self._json.read_text())

    def preview(self) -> PlotlyPreview:
        """What Kedro-Viz draws."""
        return json.loads(self._json.read_text())

    @property
    def _json(self) -> Path:
        return Path(self._get_load_path()).with_suffix(".json")
