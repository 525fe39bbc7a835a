"""Training batches: documents packed into sequences, the same for the same seed and number.

Documents begin at multiples of 4, because a compressed row pools four tokens of one document.
"""

import json
import random

import numpy as np
import torch

import render
from data import mixture, retrieval, unknown
from tokens import FIRST, Vocabulary

SEED = 4
PAD = FIRST.index("<｜▁pad▁｜>")
SHORT, LONG = (32, 2048), (4, 10240)
# What a token of each kind weighs in the loss: the model's own words are what counts.
OWN, PROMPT, READING, HAYSTACK = 1.0, 0.05, 0.35, 0.01


class Documents:
    def __init__(self, docs):
        self.vocabulary = Vocabulary()
        self.docs = [json.loads(line) for line in open(docs)]
        unknown.learn(self.docs, random.Random(SEED))

    def conversation(self, d, prompt=PROMPT):
        parts = render.render(d["messages"], d["thinking"], d.get("tools", ()), d.get("schema"), d.get("effort", False))
        ids, own = self.vocabulary.parts(parts)
        return ids, [OWN if mine else prompt for mine in own]

    def reading(self, rng):
        ids = [0, *self.vocabulary.text(mixture.reading(rng, self.docs)), 1]
        return ids, [READING] * len(ids)

    def draw(self, rng, reading):
        if rng.random() < reading:
            return self.reading(rng)
        return self.conversation(mixture.conversation(rng))

    def long(self, rng, length):
        """One long text with questions, cut to fit."""
        while True:
            d = retrieval.sample(rng, rng.randint(12_000, 41_000))
            d["thinking"] = rng.random() < 0.4
            ids, weights = self.conversation(d, HAYSTACK)
            if len(ids) <= length:
                return ids, weights


def batch(documents, number, reading, long, rows=None):
    """Tokens, the weight of each token's prediction of its successor, and document numbers."""
    rng = random.Random(SEED * 1_000_003 + number)
    count, length = LONG if long else SHORT
    count = min(count, rows or count)
    tokens = np.full((count, length), PAD, np.int64)
    weights = np.zeros((count, length), np.float32)
    owner = np.zeros((count, length), np.int64)
    waiting = None
    for row in range(count):
        at = name = 0
        while length - at >= 8:
            room = length - at
            if long and at == 0:
                ids, weight = documents.long(rng, length)
            else:
                ids, weight = waiting or documents.draw(rng, reading)
                waiting = None
                if len(ids) > room:
                    if at and len(ids) <= length:
                        waiting = (ids, weight)
                        ids, weight = documents.reading(rng)
                    ids, weight = ids[:room], weight[:room]
            tokens[row, at : at + len(ids)] = ids
            weights[row, at : at + len(ids)] = weight
            taken = min(-(-len(ids) // 4) * 4, room)
            name += 1
            owner[row, at : at + taken] = name
            at += taken
    # The weight of a prediction is that of the token it predicts.
    same = owner[:, 1:] == owner[:, :-1]
    predicted = np.zeros_like(weights)
    predicted[:, :-1] = weights[:, 1:] * same
    return torch.from_numpy(tokens), torch.from_numpy(predicted), torch.from_numpy(owner)


class Schedule(torch.utils.data.Dataset):
    """Batch `number` of a phase: much reading at first, long texts from a third of the main one on."""

    def __init__(self, docs, phase, steps, first=0, rows=None):
        self.docs, self.phase, self.steps, self.first, self.rows = docs, phase, steps, first, rows
        self.documents = None

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        self.documents = self.documents or Documents(self.docs)
        number = self.first + index
        done = number / self.steps
        if self.phase != "main":
            first = {"finish": 1_000_000, "polish": 2_000_000}[self.phase]
            return batch(self.documents, first + number, 0.08, number % 6 == 5, self.rows)
        reading = 0.35 if done < 0.3 else 0.12 if done < 0.8 else 0.04
        return batch(self.documents, number, reading, done > 0.3 and number % 6 == 5, self.rows)
