"""One picture a module, with its ``.js`` and ``.css`` beside it."""
