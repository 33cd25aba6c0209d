"""The shipped models and the recipe that trained them.

Read in this order: recipe (every number), corpus, dialogue, vocabulary, data, training, evaluation, card.
``lesson train`` runs it all; ``pico`` and ``pico-draft`` beside this file are what came out.
"""
