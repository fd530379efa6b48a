"""The pipelines: wiring, and thin nodes."""

from transformers.utils.logging import disable_progress_bar

disable_progress_bar()  # one bar for each small file loaded or saved would bury the training's own
