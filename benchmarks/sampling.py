"""Tokens a second of sampling beside transformers' generate, in one run, and the share of what the processor allows.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py [--rounds 5]

256 rows of 128 tokens after prompts of 16, random weights, float32, no early stop. The bound is the time that the
products of matrices of all steps take alone, and reading the keys and values of all steps once, as measured here on
arrays of that size. Quote the ratios, not the seconds.
"""

import argparse
import statistics
from time import perf_counter

import torch

import mrt_pipeline as mrt
from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.policy.fused import FusedModel

ROWS, PROMPT, TOKENS = 256, 16, 128
SIZES = (  # hidden size, layers, heads, intermediate size
    (96, 3, 3, 256),
    (128, 4, 4, 352),
    (256, 4, 8, 688),
)


def seconds(work) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def bound(model) -> float:
    """Seconds of one step's products of matrices times the steps, and of reading what all steps read of the cache."""
    weights = [*list(FusedModel(model).weights())[1:], model.lm_head.weight]
    inputs = [torch.randn(ROWS, weight.shape[1]) for weight in weights]
    products = [seconds(lambda: [torch.mm(x, w.T) for x, w in zip(inputs, weights)]) for _ in range(20)]
    n_layers, width = model.config.num_hidden_layers, model.config.hidden_size
    cache = torch.randn(2 * n_layers, ROWS, PROMPT + TOKENS, width)
    reading = statistics.median(seconds(cache.sum) for _ in range(5)) / (PROMPT + TOKENS)  # of one position of all
    return TOKENS * statistics.median(products) + reading * sum(range(PROMPT + 1, PROMPT + TOKENS + 1))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    task = mrt.Countdown()
    print(f"{torch.get_num_threads()} threads, {ROWS} rows of {TOKENS} tokens after prompts of {PROMPT}")
    for hidden_size, n_layers, n_heads, intermediate_size in SIZES:
        sizes = {"hidden_size": hidden_size, "n_layers": n_layers, "n_heads": n_heads}
        model = mrt.TinyPolicy(**sizes, intermediate_size=intermediate_size).build(task).model.eval()
        prompts = torch.randint(5, 30, (ROWS, PROMPT))
        engine, params = TorchEngine(model), SamplingParams(max_tokens=TOKENS, stop_token_ids=())

        def generate(model=model, prompts=prompts):
            some = torch.ones_like(prompts)
            lengths = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
            model.generate(prompts, attention_mask=some, do_sample=True, top_k=0, **lengths)

        def ours(engine=engine, params=params, prompts=prompts):
            engine.sample(prompts.tolist(), params, seed=0)

        generate(), ours()
        found = [(seconds(generate), seconds(ours)) for _ in range(rounds)]
        ratios = [theirs / own for theirs, own in found]
        own = statistics.median(own for _, own in found)
        print(
            f"{model.num_parameters() / 1e6:.2f} M parameters: {statistics.median(ratios):.2f} x generate "
            f"({min(ratios):.2f} to {max(ratios):.2f}), {ROWS * TOKENS / own:.0f} tokens a second, "
            f"{bound(model) / own:.0%} of the bound"
        )


if __name__ == "__main__":
    main()
