"""A policy small enough to list all of its traces: every expectation is a sum, every gradient a list of numbers."""

from dataclasses import dataclass

import numpy as np

MARKER, OTHER, STOP = 6, 7, 5  # a marker opens an episode; STOP is what `make_rollout` closes a thought with


@dataclass(frozen=True)
class Trace:
    """thought: new thinking tokens. stopped: the policy closed it itself. right: its answer.

    choices: for each choice, in the order of the tokens, the index of its state's logits and which one was taken.
    """

    thought: tuple[int, ...]
    stopped: bool
    right: bool
    choices: tuple[tuple[int, int], ...]


class Tabular:
    """Thinks at most `longest` tokens, MARKER or OTHER or STOP, then answers rightly or wrongly; all by logits."""

    actions = (MARKER, OTHER, STOP)

    def __init__(self, longest, rng):
        self.longest = longest
        self.rows = {}  # state -> row of `logits`; ("answer", thought) is the state of answering
        for thought in self._thoughts():
            if len(thought) < longest:
                self.rows[thought] = len(self.rows)
            self.rows["answer", thought] = len(self.rows)
        self.logits = rng.normal(size=(len(self.rows), 3))
        for state, row in self.rows.items():
            if state and state[0] == "answer":
                self.logits[row, 2] = -np.inf  # two answers

    @classmethod
    def random(cls, seed):
        """A policy, all of its traces, and a random J after each of its thoughts."""
        rng = np.random.default_rng(seed)
        policy = cls(longest=3, rng=rng)
        traces = policy.traces()
        return policy, traces, {trace.thought: rng.random() for trace in traces}

    def _thoughts(self):
        found = [()]
        for thought in found:
            if len(thought) < self.longest:
                found += [(*thought, token) for token in (MARKER, OTHER)]
        return found

    def probabilities(self, logits=None):
        logits = self.logits if logits is None else logits
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def success(self, thought):
        """J: the probability of the right answer, stopped here."""
        return self.probabilities()[self.rows["answer", tuple(thought)], 0]

    def traces(self):
        """All of them."""
        found = []
        for thought in self._thoughts():
            walked = tuple((self.rows[thought[:i]], self.actions.index(token)) for i, token in enumerate(thought))
            stops = [False] if len(thought) == self.longest else [True]
            for stopped in stops:
                closed = (*walked, (self.rows[thought], 2)) if stopped else walked
                for answer in (0, 1):
                    choices = (*closed, (self.rows["answer", thought], answer))
                    found.append(Trace(thought, stopped, answer == 0, choices))
        return found

    def labelled(self, trace, make_labelled):
        """A trace as a labelled rollout with an episode a token, and J of this policy after each."""
        success = [self.success(trace.thought[:n]) for n in range(len(trace.thought) + 1)]
        stop_reason = "stop" if trace.stopped else "length"
        return make_labelled(success, reward=float(trace.right), stop_reason=stop_reason)

    def expected_update(self, algorithm, make_labelled):
        """The expected gradient of a group of two, by listing all pairs of traces."""
        items = [(trace, self.labelled(trace, make_labelled), self.chance(trace)) for trace in self.traces()]
        total = 0.0
        for first in items:
            for second in items:
                for (trace, item, _), weights in zip(
                    (first, second), algorithm.weights([first[1], second[1]]), strict=True
                ):
                    chosen = np.flatnonzero(item.rollout.sampled())[:-1]  # the end token after the answer is certain
                    total = total + first[2] * second[2] * self.score(trace, weights[chosen])
        return total

    def expected_over_pairs(self, traces, make_labelled, j, weigh):
        """The expected sum over a group of two of weights times scores, by listing all pairs.

        j: J after each thought. weigh(pair of labelled rollouts): weights of the choices of each, that of the answer
        left out.
        """
        labelled = [(trace, self.with_success(trace, make_labelled, j), self.chance(trace)) for trace in traces]
        total = 0.0
        for first in labelled:
            for second in labelled:
                for (trace, _, _), weights in zip((first, second), weigh([first[1], second[1]]), strict=True):
                    assert len(weights) == len(trace.choices) - 1
                    total += first[2] * second[2] * self.score(trace, [*weights, 0.0])
        return total

    @staticmethod
    def with_success(trace, make_labelled, j):
        """A trace as a labelled rollout with an episode a token, and this J after each."""
        success = [j[trace.thought[:n]] for n in range(len(trace.thought) + 1)]
        return make_labelled(success, reward=float(trace.right), stop_reason="stop" if trace.stopped else "length")

    def direct(self):
        """The two traces that answer at once."""
        return [Trace((), False, answer == 0, ((self.rows["answer", ()], answer),)) for answer in (0, 1)]

    def chance(self, trace, logits=None):
        probabilities = self.probabilities(logits)
        return np.prod([probabilities[row, taken] for row, taken in trace.choices])

    def score(self, trace, weights):
        """Sum over the choices of weight times the gradient of their log-probability, shape of the logits."""
        probabilities, gradient = self.probabilities(), np.zeros(self.logits.shape)
        for (row, taken), weight in zip(trace.choices, weights, strict=True):
            gradient[row] -= weight * probabilities[row]
            gradient[row, taken] += weight
        return gradient

    def gradient(self, traces, value, step=1e-6):
        """Of the expected value over these traces, by finite differences: no formula of a policy gradient in it."""
        return self._differences(
            lambda logits, _: sum(self.chance(trace, logits) * value(trace) for trace in traces), step
        )

    def local_gradient(self, traces, value, step=1e-6):
        """In each state's logits, that of what is expected from this state on, times the chance to get there.

        value(trace, t): what the choice at place t of the trace and those after it are worth.
        """
        through = {row: [] for row in self.rows.values()}
        for trace in traces:
            for t, (row, _) in enumerate(trace.choices):
                through[row].append((trace, value(trace, t)))
        return self._differences(
            lambda logits, row: sum(self.chance(trace, logits) * worth for trace, worth in through[row]), step
        )

    def _differences(self, expected, step):
        """expected(logits, row): a number that is to be differentiated by the logits of this row."""
        result = np.zeros(self.logits.shape)
        for row, action in np.argwhere(np.isfinite(self.logits)):
            up, down = self.logits.copy(), self.logits.copy()
            up[row, action] += step
            down[row, action] -= step
            result[row, action] = (expected(up, row) - expected(down, row)) / (2 * step)
        return result
