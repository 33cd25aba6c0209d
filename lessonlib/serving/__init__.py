"""The engine over HTTP: one engine thread, the wire formats of OpenAI, Anthropic and Ollama, metrics, and a bench.

Read in this order: errors, limits, engine, chat, wire, tokens, openai, anthropic, ollama, auth, guards, metrics, logs,
shared, gate, screen, reply, app, server; then bench, a client that knows nothing of the rest.
"""
