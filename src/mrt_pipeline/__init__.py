"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572) as an orchestrated, tracked pipeline."""

__version__ = "0.1.0"
